//! Tests of `streamer tables` over HTTP, against the harness's fake of DynamoDB and against endpoints that
//! fail.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::stage::create_tables;
use streamer_harness::template::{Environment, Template};

use crate::workspace::{IDLE, Workspace, printed, serve};

/// Serves an endpoint that answers each call with the status and body that `answer` returns. `answer`
/// receives the call's operation and request body.
fn serve_answers<F>(answer: F) -> String
where
    F: Fn(&str, &[u8]) -> (u16, String) + Clone + Send + Sync + 'static,
{
    let handler = async move |headers: HeaderMap, body: Bytes| {
        let target = headers["x-amz-target"].to_str().unwrap();
        let (status, body) = answer(target.rsplit('.').next().unwrap(), &body);
        (StatusCode::from_u16(status).unwrap(), body)
    };
    serve(Router::new().route("/", post(handler)))
}

fn from_database(db: &DynamoDb, operation: &str, body: &[u8]) -> (u16, String) {
    let answer = db.handle(&format!("DynamoDB_20120810.{operation}"), body);
    (answer.status, String::from_utf8(answer.body.into()).unwrap())
}

fn call(db: &DynamoDb, operation: &str, request: &Value) -> Value {
    let (status, answer) = from_database(db, operation, request.to_string().as_bytes());
    assert_eq!(status, 200, "{operation}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

fn tables_of(db: &DynamoDb) -> Value {
    call(db, "ListTables", &json!({}))["TableNames"].take()
}

/// Returns the `streamer tables` command, in an environment without AWS settings and credentials.
fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    workspace.command_without_aws(&[&["tables"], arguments].concat())
}

fn run(workspace: &Workspace, arguments: &[&str]) -> String {
    printed(&command(workspace, arguments).output().unwrap())
}

/// Runs a `streamer tables` command at an endpoint, with the template `lambdas/template.yaml`.
fn run_with_deployed_template(workspace: &Workspace, action: &str, url: &str, more: &[&str]) -> String {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../../lambdas/template.yaml");
    let arguments = [action, "--endpoint", url, "--prefix", "demo", "--template", template];
    run(workspace, &[&arguments, more].concat()).replace(url, "[endpoint]")
}

fn run_with_input(workspace: &Workspace, arguments: &[&str], text: &str) -> String {
    let mut command = command(workspace, arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    printed(&child.wait_with_output().unwrap())
}

#[test]
fn tables_of_the_template_are_created_checked_and_deleted() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let steps = ["check", "create", "create", "check"]
        .map(|action| run_with_deployed_template(&workspace, action, &url, &[]));
    assert_snapshot!(steps.join("\n"));
    let deleted = run_with_deployed_template(&workspace, "delete", &url, &["--yes"]);
    assert!(deleted.starts_with("0\ndemo-RequestsTable: deleted\n"), "{deleted}");
    assert_eq!(tables_of(&db), json!([]));
    let again = run_with_deployed_template(&workspace, "delete", &url, &["--yes"]);
    assert_eq!(again, "0\nThere are no tables to delete for the prefix demo.\n");
}

#[test]
fn tables_are_deleted_only_after_the_prefix_is_typed() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let place = ["--endpoint", &url, "--prefix", "demo"];
    run(&workspace, &[&["create"], &place[..]].concat());
    let delete = [&["delete"], &place[..]].concat();
    for typed in ["", "\n", "y\n", "demo-\n"] {
        let refused = run_with_input(&workspace, &delete, typed);
        assert!(
            refused.starts_with("1\n") && refused.contains("no table was deleted"),
            "{typed:?}: {refused}"
        );
        assert_eq!(tables_of(&db), json!(["demo-Table"]), "{typed:?}");
    }
    assert_snapshot!(run_with_input(&workspace, &delete, "demo\n").replace(&url, "[endpoint]"), @r"
    0
    This deletes the following tables and all their items at [endpoint]:

      arn:aws:dynamodb:us-east-1:000000000000:table/demo-Table

    Type the prefix (demo) to continue: demo-Table: deleted
    ");
    assert_eq!(tables_of(&db), json!([]));
}

/// Template properties of a table with every setting that `streamer tables` compares.
const FULL: &str = "\
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions:
        - { AttributeName: id, AttributeType: S }
        - { AttributeName: at, AttributeType: N }
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
      GlobalSecondaryIndexes:
        - IndexName: missing
          KeySchema: [{ AttributeName: at, KeyType: HASH }]
          Projection: { ProjectionType: KEYS_ONLY }
        - IndexName: other
          KeySchema: [{ AttributeName: id, KeyType: HASH }, { AttributeName: at, KeyType: RANGE }]
          Projection: { ProjectionType: INCLUDE, NonKeyAttributes: [a, b] }
      StreamSpecification: { StreamViewType: NEW_IMAGE }
      TimeToLiveSpecification: { AttributeName: ttl, Enabled: true }
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }
      SSESpecification: { SSEEnabled: true }
      DeletionProtectionEnabled: true
      TableClass: STANDARD_INFREQUENT_ACCESS
      Tags: [{ Key: team, Value: blue }]
";

/// Template properties of a table with only the required settings.
const PLAIN: &str = "\
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
";

#[test]
fn every_table_difference_is_printed_and_existing_tables_are_not_changed() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(PLAIN, FULL);
    let index = |name: &str, projection: Value| {
        json!({
            "IndexName": name, "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
            "Projection": projection, "ProvisionedThroughput": { "ReadCapacityUnits": 1, "WriteCapacityUnits": 2 },
        })
    };
    let existing = json!({
        "TableName": "demo-Table",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "N" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        "ProvisionedThroughput": { "ReadCapacityUnits": 3, "WriteCapacityUnits": 4 },
        "GlobalSecondaryIndexes": [
            index("other", json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"] })),
            index("unasked", json!({ "ProjectionType": "ALL" })),
        ],
    });
    call(&db, "CreateTable", &existing);
    let ttl = json!({ "AttributeName": "expires", "Enabled": true });
    call(&db, "UpdateTimeToLive", &json!({ "TableName": "demo-Table", "TimeToLiveSpecification": ttl }));
    let described = || {
        let table = json!({ "TableName": "demo-Table" });
        [call(&db, "DescribeTable", &table), call(&db, "DescribeTimeToLive", &table)]
    };
    let before = described();
    let url = serve(db.router());
    let place = ["--endpoint", &url, "--prefix", "demo"];
    let checked = run(&workspace, &[&["check"], &place[..]].concat());
    let created = run(&workspace, &[&["create"], &place[..]].concat());
    assert_snapshot!(format!("{checked}\n{created}"));
    assert_eq!(described(), before);
}

#[test]
fn table_with_every_setting_is_created_and_deletion_protection_is_respected() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(PLAIN, FULL);
    let url = serve(db.router());
    let place = ["--endpoint", &url, "--prefix", "demo"];
    let steps = [
        run(&workspace, &[&["create"], &place[..]].concat()),
        run(&workspace, &[&["check"], &place[..]].concat()),
        run(&workspace, &[&["delete", "--yes"], &place[..]].concat()),
    ];
    assert_snapshot!(steps.join("\n"));
    assert_eq!(tables_of(&db), json!(["demo-Table"]));
}

/// The endpoint behaves like AWS: first the table becomes active, later its index, and last its backups.
#[test]
fn tables_create_waits_for_active_tables_indexes_and_backups() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(
        PLAIN,
        &FULL.replace("DeletionProtectionEnabled: true", "DeletionProtectionEnabled: false"),
    );
    let (database, log, recovery) =
        (db.clone(), Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new("DISABLED")));
    let calls = Arc::clone(&log);
    let url = serve_answers(move |operation, body| {
        let nth = {
            let mut calls = calls.lock().unwrap();
            calls.push(operation.to_owned());
            calls.iter().filter(|call| *call == operation).count()
        };
        let recovery = || recovery.lock().unwrap();
        match (operation, nth) {
            ("DescribeTable", 1) => {
                let (status, answer) = from_database(&database, operation, body);
                (status, answer.replace("\"TableStatus\":\"ACTIVE\"", "\"TableStatus\":\"CREATING\""))
            }
            ("DescribeTable", 2) => {
                let (status, answer) = from_database(&database, operation, body);
                (status, answer.replace("\"IndexStatus\":\"ACTIVE\"", "\"IndexStatus\":\"CREATING\""))
            }
            ("UpdateContinuousBackups", 1) => {
                let name = "com.amazonaws.dynamodb.v20120810#ContinuousBackupsUnavailableException";
                (
                    400,
                    json!({ "__type": name, "message": "Backups are being enabled for the table" })
                        .to_string(),
                )
            }
            ("UpdateContinuousBackups" | "DescribeContinuousBackups", _) => {
                if operation == "UpdateContinuousBackups" {
                    *recovery() = "ENABLED";
                }
                let status = json!({ "PointInTimeRecoveryStatus": *recovery() });
                let description =
                    json!({ "ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": status });
                (200, json!({ "ContinuousBackupsDescription": description }).to_string())
            }
            _ => from_database(&database, operation, body),
        }
    });
    let created = run(&workspace, &["create", "--endpoint", &url, "--prefix", "demo"]);
    assert_snapshot!(format!("{created}\n{}", log.lock().unwrap().join("\n")));
}

/// The earlier run was killed after its `CreateTable` call, before it turned on time to live.
#[test]
fn tables_create_completes_an_interrupted_earlier_run() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(
        PLAIN,
        &format!("{PLAIN}      TimeToLiveSpecification: {{ AttributeName: ttl, Enabled: true }}\n"),
    );
    call(
        &db,
        "CreateTable",
        &json!({
            "TableName": "demo-Table", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        }),
    );
    let url = serve(db.router());
    let created = run(&workspace, &["create", "--endpoint", &url, "--prefix", "demo"]);
    assert!(created.starts_with("0\ndemo-Table: exists already\n"), "{created}");
    let ttl = call(&db, "DescribeTimeToLive", &json!({ "TableName": "demo-Table" }));
    assert_eq!(ttl["TimeToLiveDescription"]["AttributeName"], "ttl");
}

/// On AWS, the change would take up to an hour, and no expired items would be deleted during that time.
#[test]
fn tables_create_does_not_change_the_time_to_live_attribute() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let expiring = |by: &str| {
        format!("{PLAIN}      TimeToLiveSpecification: {{ AttributeName: {by}, Enabled: true }}\n")
    };
    workspace.edit_template(PLAIN, &expiring("expires"));
    let url = serve(db.router());
    let create = ["create", "--endpoint", &url, "--prefix", "demo"];
    assert_eq!(
        run(&workspace, &create),
        "0\ndemo-Table: created\n  point-in-time recovery: not compared, the endpoint does not know this setting\n"
    );
    workspace.edit_template(&expiring("expires"), &expiring("ttl"));
    let refused = run(&workspace, &create);
    assert!(refused.contains("  time to live: should be on ttl; is on expires\n"), "{refused}");
    let ttl = call(&db, "DescribeTimeToLive", &json!({ "TableName": "demo-Table" }));
    assert_eq!(ttl["TimeToLiveDescription"]["AttributeName"], "expires");
}

/// CloudFormation appends random characters to the table names that it generates.
#[test]
fn table_is_found_by_the_name_in_the_table_argument() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let run_at = |arguments: &[&str]| {
        run(&workspace, &[arguments, &["--endpoint", &url, "--prefix", "demo"]].concat())
    };
    let real = ["--table", "Table=demo-Table-1A2B3C"];
    run_at(&[&["create"], &real[..]].concat());
    assert_eq!(tables_of(&db), json!(["demo-Table-1A2B3C"]));
    assert_eq!(run_at(&["check"]), "1\ndemo-Table: missing\n");
    let checked = run_at(&[&["check"], &real[..]].concat());
    assert!(checked.starts_with("0\ndemo-Table-1A2B3C: matches the template\n"), "{checked}");
    let unknown = run_at(&["check", "--table", "Tabel=demo-Table-1A2B3C"]);
    assert!(unknown.starts_with("1\n") && unknown.contains("the template has no table Tabel"), "{unknown}");
    assert_eq!(run_at(&[&["delete", "--yes"], &real[..]].concat()), "0\ndemo-Table-1A2B3C: deleted\n");
}

fn encrypted(key: &str) -> String {
    format!("{PLAIN}      SSESpecification: {{ SSEEnabled: true, KMSMasterKeyId: {key} }}\n")
}

/// Serves an endpoint that reports every table as encrypted with the KMS key `1234`.
fn serve_encrypted(db: &DynamoDb) -> String {
    let db = db.clone();
    serve_answers(move |operation, body| {
        let (status, answer) = from_database(&db, operation, body);
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        if operation == "DescribeTable" && status == 200 {
            answer["Table"]["SSEDescription"] = json!({
                "Status": "ENABLED", "SSEType": "KMS",
                "KMSMasterKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1234",
            });
        }
        (status, answer.to_string())
    })
}

#[test]
fn unknown_kms_key_is_not_compared_and_prevents_the_creation_of_the_table() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let (plain, encrypting) = (serve(db.router()), serve_encrypted(&db));
    let by_template = "!GetAtt Key.Arn";
    workspace.edit_template(PLAIN, &encrypted(by_template));
    workspace.edit_template("Resources:\n", "Resources:\n  Key: { Type: AWS::KMS::Key, Properties: {} }\n");
    let refused = run(&workspace, &["create", "--endpoint", &plain, "--prefix", "demo"]);
    assert!(
        refused.contains("table demo-Table is not created, because only CloudFormation knows its KMS key"),
        "{refused}"
    );
    assert_eq!(tables_of(&db), json!([]));

    let existing = json!({
        "TableName": "demo-Table", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
    });
    call(&db, "CreateTable", &existing);
    let mut outputs = Vec::new();
    let mut before = by_template;
    for key in [
        by_template,
        "!Sub 'arn:aws:kms:us-east-1:${AWS::AccountId}:key/1234'",
        "alias/mine",
        "34",
        "1234",
        "!Ref AWS::NoValue",
    ] {
        workspace.edit_template(before, key);
        before = key;
        for url in [&plain, &encrypting] {
            let checked = run(&workspace, &["check", "--endpoint", url, "--prefix", "demo"]);
            outputs.push(format!("{key}: {checked}"));
        }
    }
    assert_snapshot!(outputs.join("\n"));
    // The table already exists, so `create` does not need the id of the KMS key.
    workspace.edit_template(before, by_template);
    let created = run(&workspace, &["create", "--endpoint", &encrypting, "--prefix", "demo"]);
    assert!(created.starts_with("0\ndemo-Table: exists already\n"), "{created}");
}

/// The local stage encrypts nothing, so it needs no key.
#[test]
fn local_stage_creates_a_table_whose_kms_key_is_unknown() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(PLAIN, &encrypted("!ImportValue key"));
    let offered = [("JwtKey".to_owned(), "unused".to_owned())].into();
    let environment = Environment { offered, ..Environment::default() };
    let template = Template::load(&workspace.path().join("lambdas/template.yaml"), &environment).unwrap();
    create_tables(&db, &template.tables).unwrap();
    assert_eq!(tables_of(&db), json!(["streamer-Table"]));
}

#[test]
fn table_or_index_with_an_unusable_status_is_a_difference() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let full = FULL.replace("STANDARD_INFREQUENT_ACCESS", "STANDARD");
    workspace.edit_template(PLAIN, &full);
    run(&workspace, &["create", "--endpoint", &serve(db.router()), "--prefix", "demo"]);
    let mut outputs = Vec::new();
    for (table, index) in [
        ("UPDATING", json!({ "IndexStatus": "UPDATING" })),
        ("DELETING", json!({ "IndexStatus": "ACTIVE" })),
        ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", json!({ "IndexStatus": "DELETING" })),
        ("UPDATING", json!({ "IndexStatus": "CREATING", "Backfilling": true })),
    ] {
        let db = db.clone();
        let url = serve_answers(move |operation, body| {
            let (status, answer) = from_database(&db, operation, body);
            let mut answer: Value = serde_json::from_str(&answer).unwrap();
            if operation == "DescribeTable" {
                answer["Table"]["TableStatus"] = table.into();
                let of_index = answer["Table"]["GlobalSecondaryIndexes"][0].as_object_mut().unwrap();
                of_index.extend(index.as_object().unwrap().clone());
            }
            (status, answer.to_string())
        });
        outputs.push(run(&workspace, &["check", "--endpoint", &url, "--prefix", "demo"]));
    }
    assert_snapshot!(outputs.join("\n"));
}

/// The endpoint may come from an environment variable or from a profile. The prompt must name the endpoint that
/// is called.
#[test]
fn delete_prompt_names_the_endpoint_and_the_account() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    run(&workspace, &["create", "--endpoint", &url, "--prefix", "demo"]);
    let profile = workspace.path().join("aws-config");
    let text = format!("[default]\nservices = here\n[services here]\ndynamodb =\n  endpoint_url = {url}\n");
    std::fs::write(&profile, text).unwrap();
    for (name, value) in [
        ("AWS_ENDPOINT_URL_DYNAMODB", url.as_str()),
        ("AWS_ENDPOINT_URL", &url),
        ("AWS_CONFIG_FILE", profile.to_str().unwrap()),
    ] {
        let mut delete = command(&workspace, &["delete", "--prefix", "demo", "--region", "us-east-1"]);
        delete.env(name, value).env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
        let output = printed(&delete.output().unwrap());
        let prompt = format!(
            "1\nThis deletes the following tables and all their items at {url}:\n\n  \
             arn:aws:dynamodb:us-east-1:000000000000:table/demo-Table\n"
        );
        assert!(output.starts_with(&prompt), "{name}: {output}");
    }
}

/// AWS refuses a second change of time to live within an hour, and any change while time to live is being
/// turned off.
#[test]
fn refused_time_to_live_is_a_difference_and_the_other_tables_are_created() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let database = db.clone();
    let url = serve_answers(move |operation, body| {
        if operation == "UpdateTimeToLive" && String::from_utf8_lossy(body).contains("demo-RequestsTable") {
            let message = "Time to live has been modified multiple times within a fixed interval";
            let answer =
                json!({ "__type": "com.amazon.coral.validate#ValidationException", "message": message });
            return (400, answer.to_string());
        }
        from_database(&database, operation, body)
    });
    assert_snapshot!(run_with_deployed_template(&workspace, "create", &url, &[]));
    assert_eq!(
        tables_of(&db),
        json!(["demo-ConnectionsTable", "demo-RateLimitsTable", "demo-RequestsTable"])
    );
}

#[test]
fn repeated_table_delete_waits_for_the_first_delete() {
    let in_use = || {
        let name = "com.amazonaws.dynamodb.v20120810#ResourceInUseException";
        (
            400,
            json!({ "__type": name, "message": "Attempt to change a resource which is still in use" })
                .to_string(),
        )
    };
    let described = |status: &str| (200, json!({ "Table": { "TableStatus": status } }).to_string());
    let deleting = |during: &'static str, times: usize| {
        let calls = Arc::new(Mutex::new(0));
        serve_answers(move |operation, _| {
            if operation == "DeleteTable" {
                return in_use();
            }
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            if *calls <= times {
                described(during)
            } else {
                let name = "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException";
                (400, json!({ "__type": name, "message": "no such table" }).to_string())
            }
        })
    };
    let workspace = Workspace::new(IDLE);
    let delete = |url: &str| run(&workspace, &["delete", "--yes", "--prefix", "demo", "--endpoint", url]);
    assert_eq!(delete(&deleting("DELETING", 3)), "0\ndemo-Table: deleted\n");
    let made = delete(&deleting("CREATING", 3));
    assert!(
        made.starts_with("1\n") && made.contains("DeleteTable of demo-Table is not possible now"),
        "{made}"
    );
}

#[test]
fn table_names_are_resolved_from_the_region_and_the_template_parameters() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let place = ["--endpoint", &url, "--prefix", "demo"];
    workspace.edit_template("Parameters:\n", "Parameters:\n  Suffix: { Type: String }\n");
    let name = "      TableName: !Sub '${AWS::StackName}-${AWS::Region}-${Suffix}'\n      BillingMode";
    workspace.edit_template("      BillingMode", name);
    let missing = run(&workspace, &[&["create"], &place[..]].concat());
    assert!(missing.contains("parameters without a default and without a value: Suffix"), "{missing}");
    let create = [&["create"], &place[..], &["--parameter", "Suffix=blue"]].concat();
    let created = printed(&command(&workspace, &create).env("AWS_REGION", "eu-west-1").output().unwrap());
    assert!(created.starts_with("0\ndemo-eu-west-1-blue: created\n"), "{created}");

    workspace.edit_template("-${AWS::Region}-", "-${AWS::AccountId}-");
    let refused = run(&workspace, &create);
    assert!(
        refused.starts_with("1\n") && refused.contains("the name of Table contains the AWS account id"),
        "{refused}"
    );
    let named = run(&workspace, &[&create[..], &["--table", "Table=demo-12-blue"]].concat());
    assert!(named.starts_with("0\ndemo-12-blue: created\n"), "{named}");
}

#[test]
fn table_properties_that_are_not_compared_are_listed() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let full = FULL
        .replace("KEYS_ONLY }\n", "KEYS_ONLY }\n          OnDemandThroughput: { MaxReadRequestUnits: 5 }\n")
        .replace(
            "PointInTimeRecoveryEnabled: true",
            "PointInTimeRecoveryEnabled: true, RecoveryPeriodInDays: 3",
        )
        .replace("NEW_IMAGE }", "NEW_IMAGE, ResourcePolicy: { PolicyDocument: {} } }");
    workspace.edit_template(PLAIN, &full);
    assert_snapshot!(run(&workspace, &["create", "--endpoint", &serve(db.router()), "--prefix", "demo"]));
}

#[test]
fn error_of_a_failing_endpoint_says_to_try_again() {
    let workspace = Workspace::new(IDLE);
    for (status, name) in
        [(500, "InternalServerError"), (400, "RequestLimitExceeded"), (503, "ServiceUnavailable")]
    {
        let url = serve_answers(move |_, _| (status, json!({ "__type": name, "message": "oh" }).to_string()));
        let output = run(&workspace, &["check", "--endpoint", &url, "--prefix", "demo"]);
        assert!(output.starts_with("1\n") && output.ends_with("oh); try again later\n"), "{name}: {output}");
    }
    let gateway = serve_answers(|_, _| (502, "<html>".to_owned()));
    let output = run(&workspace, &["check", "--endpoint", &gateway, "--prefix", "demo"]);
    assert!(output.ends_with("; try again later\n"), "{output}");
}

#[test]
fn errors_of_tables_commands_say_how_to_fix_the_cause() {
    let workspace = Workspace::new(IDLE);
    let refusing = |name: &str, message: &str| {
        let body = json!({ "__type": format!("com.amazon.coral.service#{name}"), "message": message });
        let body = body.to_string();
        serve_answers(move |_, _| (400, body.clone()))
    };
    let denied =
        refusing("AccessDeniedException", "User: ann is not authorized to perform: dynamodb:CreateTable");
    let expired = refusing("ExpiredTokenException", "The security token included in the request is expired");
    let mut outputs = Vec::new();
    for endpoint in ["http://127.0.0.1:9", &denied, &expired] {
        outputs.push(
            run(&workspace, &["create", "--endpoint", endpoint, "--prefix", "demo"])
                .replace(endpoint, "[endpoint]"),
        );
    }
    outputs.push(run(&workspace, &["create", "--prefix", "demo"]));
    outputs.push(run(&workspace, &["create", "--prefix", "demo", "--region", "eu-west-1"]));
    workspace.edit_template("      BillingMode", "      TableName: orders\n      BillingMode");
    let fixed = run(&workspace, &["create", "--prefix", "demo", "--endpoint", "http://127.0.0.1:9"]);
    outputs
        .push(fixed.replace(&workspace.path().canonicalize().unwrap().display().to_string(), "[workspace]"));
    assert_snapshot!(outputs.join("\n"));
}
