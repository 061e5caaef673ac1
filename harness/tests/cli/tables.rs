//! `streamer tables` over HTTP, against the harness's own DynamoDB and against endpoints that make trouble.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer_harness::dynamodb::DynamoDb;

use crate::workspace::{IDLE, Workspace};

/// An endpoint on a port of its own, for as long as the test runs.
fn serve(router: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
    });
    url
}

/// An endpoint that answers by a function of the operation and the request.
fn answering<F>(answer: F) -> String
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

/// The command, in an environment that has nothing of AWS.
fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.command(&[&["tables"], arguments].concat());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// What it printed, after what it ended with.
fn told(output: &Output) -> String {
    let code = output.status.code().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{code}\n{}{}", text(&output.stdout), text(&output.stderr))
}

fn run(workspace: &Workspace, arguments: &[&str]) -> String {
    told(&command(workspace, arguments).output().unwrap())
}

/// Runs it at an endpoint, on the template that ships.
fn shipped(workspace: &Workspace, what: &str, url: &str, further: &[&str]) -> String {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../lambdas/template.yaml");
    let arguments = [what, "--endpoint", url, "--prefix", "demo", "--template", template];
    run(workspace, &[&arguments, further].concat()).replace(url, "[endpoint]")
}

fn typing(workspace: &Workspace, arguments: &[&str], text: &str) -> String {
    let mut command = command(workspace, arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    told(&child.wait_with_output().unwrap())
}

#[test]
fn the_templates_tables_are_made_checked_and_deleted() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let steps = ["check", "create", "create", "check"].map(|what| shipped(&workspace, what, &url, &[]));
    assert_snapshot!(steps.join("\n"));
    let deleted = shipped(&workspace, "delete", &url, &["--yes"]);
    assert!(deleted.starts_with("0\ndemo-RequestsTable: deleted\n"), "{deleted}");
    assert_eq!(tables_of(&db), json!([]));
    let again = shipped(&workspace, "delete", &url, &["--yes"]);
    assert_eq!(again, "0\nThere is no table to delete under the prefix demo.\n");
}

#[test]
fn tables_are_deleted_once_the_prefix_is_typed_and_not_before() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let url = serve(db.router());
    let place = ["--endpoint", &url, "--prefix", "demo"];
    run(&workspace, &[&["create"], &place[..]].concat());
    let delete = [&["delete"], &place[..]].concat();
    for typed in ["", "\n", "y\n", "demo-\n"] {
        let refused = typing(&workspace, &delete, typed);
        assert!(refused.starts_with("1\n") && refused.contains("nothing is deleted"), "{typed:?}: {refused}");
        assert_eq!(tables_of(&db), json!(["demo-Table"]), "{typed:?}");
    }
    assert_snapshot!(typing(&workspace, &delete, "demo\n").replace(&url, "[endpoint]"));
    assert_eq!(tables_of(&db), json!([]));
}

/// What a table can have, and its opposite.
const RICH: &str = "\
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

const PLAIN: &str = "\
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
";

#[test]
fn every_difference_is_printed_and_nothing_that_stands_is_changed() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(PLAIN, RICH);
    let index = |name: &str, projection: Value| {
        json!({
            "IndexName": name, "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
            "Projection": projection, "ProvisionedThroughput": { "ReadCapacityUnits": 1, "WriteCapacityUnits": 2 },
        })
    };
    let stands = json!({
        "TableName": "demo-Table",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "N" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        "ProvisionedThroughput": { "ReadCapacityUnits": 3, "WriteCapacityUnits": 4 },
        "GlobalSecondaryIndexes": [
            index("other", json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"] })),
            index("unasked", json!({ "ProjectionType": "ALL" })),
        ],
    });
    call(&db, "CreateTable", &stands);
    let ttl = json!({ "AttributeName": "expires", "Enabled": true });
    call(&db, "UpdateTimeToLive", &json!({ "TableName": "demo-Table", "TimeToLiveSpecification": ttl }));
    let described = || {
        let this = json!({ "TableName": "demo-Table" });
        [call(&db, "DescribeTable", &this), call(&db, "DescribeTimeToLive", &this)]
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
fn a_table_of_every_kind_is_made_as_the_template_says_and_its_protection_is_respected() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(PLAIN, RICH);
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

/// As AWS: a table takes a while to be active, its index a while longer, and its backups longer still.
#[test]
fn create_waits_for_tables_indexes_and_backups() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    workspace.edit_template(
        PLAIN,
        &RICH.replace("DeletionProtectionEnabled: true", "DeletionProtectionEnabled: false"),
    );
    let (database, log, recovery) =
        (db.clone(), Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new("DISABLED")));
    let calls = Arc::clone(&log);
    let url = answering(move |operation, body| {
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

/// A run that was killed after `CreateTable` is finished by the next.
#[test]
fn what_an_interrupted_create_left_undone_is_done_by_the_next() {
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
    assert!(created.starts_with("0\ndemo-Table: stands already\n"), "{created}");
    let ttl = call(&db, "DescribeTimeToLive", &json!({ "TableName": "demo-Table" }));
    assert_eq!(ttl["TimeToLiveDescription"]["AttributeName"], "ttl");
}

/// Turning it off and on again takes AWS an hour, and what is to expire meanwhile does not.
#[test]
fn a_time_to_live_on_another_attribute_is_left_as_it_is() {
    let (workspace, db) = (Workspace::new(IDLE), DynamoDb::builder().in_memory().unwrap());
    let expiring = |by: &str| {
        format!("{PLAIN}      TimeToLiveSpecification: {{ AttributeName: {by}, Enabled: true }}\n")
    };
    workspace.edit_template(PLAIN, &expiring("expires"));
    let url = serve(db.router());
    let create = ["create", "--endpoint", &url, "--prefix", "demo"];
    assert_eq!(
        run(&workspace, &create),
        "0\ndemo-Table: made\n  point-in-time recovery: not compared, this endpoint does not know it\n"
    );
    workspace.edit_template(&expiring("expires"), &expiring("ttl"));
    let refused = run(&workspace, &create);
    assert!(refused.contains("  time to live: should be on ttl; is on expires\n"), "{refused}");
    let ttl = call(&db, "DescribeTimeToLive", &json!({ "TableName": "demo-Table" }));
    assert_eq!(ttl["TimeToLiveDescription"]["AttributeName"], "expires");
}

#[test]
fn what_stands_in_the_way_is_said_with_how_to_mend_it() {
    let workspace = Workspace::new(IDLE);
    let refusing = |name: &str, message: &str| {
        let body = json!({ "__type": format!("com.amazon.coral.service#{name}"), "message": message });
        let body = body.to_string();
        answering(move |_, _| (400, body.clone()))
    };
    let denied =
        refusing("AccessDeniedException", "User: ann is not authorized to perform: dynamodb:CreateTable");
    let expired = refusing("ExpiredTokenException", "The security token included in the request is expired");
    let mut said = Vec::new();
    for endpoint in ["http://127.0.0.1:9", &denied, &expired] {
        said.push(
            run(&workspace, &["create", "--endpoint", endpoint, "--prefix", "demo"])
                .replace(endpoint, "[endpoint]"),
        );
    }
    said.push(run(&workspace, &["create", "--prefix", "demo"]));
    said.push(run(&workspace, &["create", "--prefix", "demo", "--region", "eu-west-1"]));
    workspace.edit_template("      BillingMode", "      TableName: orders\n      BillingMode");
    let fixed = run(&workspace, &["create", "--prefix", "demo", "--endpoint", "http://127.0.0.1:9"]);
    said.push(fixed.replace(&workspace.path().canonicalize().unwrap().display().to_string(), "[workspace]"));
    assert_snapshot!(said.join("\n"));
}
