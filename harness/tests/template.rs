//! Tests of the template reader, with the deployed template and with smaller templates.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use streamer_harness::lambda::AsyncSettings;
use streamer_harness::template::{Environment, FindingKind, Template, TemplateError};

fn environment(parameters: &[(&str, &str)]) -> Environment {
    let parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Environment { parameters, ..Environment::default() }
}

fn shipped() -> Template {
    Template::load(Path::new("../lambdas/template.yaml"), &environment(&[("JwtKey", "a public key")]))
        .expect("the shipped template is valid")
}

/// Parses a template with defaults for functions and the given remaining sections.
fn with(rest: &str) -> Result<Template, TemplateError> {
    let text = format!(
        "Transform: AWS::Serverless-2016-10-31\nGlobals:\n  Function: {{Runtime: provided.al2023, Handler: f, \
         CodeUri: code/}}\n{rest}"
    );
    Template::parse(&text, Path::new("base"), &Environment::default())
}

fn resources(rest: &str) -> Result<Template, TemplateError> {
    with(&format!("Resources:\n  F:\n    Type: AWS::Serverless::Function\n{rest}"))
}

fn problems(result: Result<Template, TemplateError>) -> Vec<String> {
    match result {
        Ok(template) => panic!("the template is invalid, but it was accepted: {template:?}"),
        Err(error) => error
            .problems()
            .iter()
            .map(|problem| format!("{}: {}", problem.place.path, problem.message))
            .collect(),
    }
}

#[test]
fn tables_are_read_from_the_shipped_template() {
    insta::assert_debug_snapshot!(shipped().tables);
}

#[test]
fn functions_are_read_from_the_shipped_template() {
    insta::assert_debug_snapshot!(shipped().functions);
}

#[test]
fn websocket_api_is_read_from_the_shipped_template() {
    insta::assert_debug_snapshot!(shipped().api);
}

#[test]
fn event_source_mappings_are_read_from_the_shipped_template() {
    insta::assert_debug_snapshot!(shipped().mappings);
}

#[test]
fn findings_of_the_shipped_template_are_reported() {
    let lines = shipped().findings.iter().fold(String::new(), |mut lines, finding| {
        writeln!(lines, "{:?} {}: {}", finding.kind, finding.place.path, finding.meaning).unwrap();
        lines
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn shipped_template_is_valid_without_parameters() {
    let template = Template::load(Path::new("../lambdas/template.yaml"), &Environment::default()).unwrap();
    assert_eq!(
        template.functions[0].environment["JWT_KEY"], "",
        "an omitted parameter has its default value, because only the section Rules requires a value"
    );
}

#[test]
fn unreadable_template_file_is_named_in_the_error() {
    let error = Template::load(Path::new("no/such.yaml"), &Environment::default()).unwrap_err();
    assert!(matches!(error, TemplateError::Unreadable { .. }));
    assert!(error.to_string().starts_with("the template no/such.yaml cannot be read: "), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert!(error.problems().is_empty());
}

#[test]
fn function_without_settings_gets_the_defaults_of_lambda() {
    let template = resources("").unwrap();
    let function = &template.functions[0];
    assert_eq!(function.timeout, Duration::from_secs(3));
    assert_eq!(function.memory_mib, 128);
    assert_eq!(function.reserved_concurrency, None);
    assert_eq!(function.binary, "f");
    assert_eq!(function.code_dir, Path::new("base/code"));
    assert!(template.api.is_none());
    assert!(template.findings.is_empty());
}

#[test]
fn property_of_a_wrong_type_is_an_error_with_expected_and_found_values() {
    let found = problems(resources(
        "    Properties:\n      Timeout: abc\n      MemorySize: 64\n      FunctionName: [a]\n      \
         Environment: {Variables: {AWS_REGION: x, OK: {a: b}, 9: y}}\n      Runtime: nodejs20.x\n      \
         CodeUri: s3://bucket/key\n      Handler:\n",
    ));
    assert_eq!(
        found,
        [
            "Resources.F.Properties.Timeout: expected a whole number of seconds, found \"abc\"",
            "Resources.F.Properties.MemorySize: expected 128 to 10240 MiB, found 64",
            "Resources.F.Properties.FunctionName: expected text, found a list",
            "Resources.F.Properties.Environment.Variables.AWS_REGION: this variable is reserved by Lambda; choose \
             another name",
            "Resources.F.Properties.Environment.Variables.OK: expected text, found a mapping",
            "Resources.F.Properties.Environment.Variables.9: expected a variable name of at least two characters: a \
             letter, then letters, digits and _",
            "Resources.F.Properties.Runtime: the local stage runs only binaries (runtime provided.al2023), \
             found \"nodejs20.x\"",
            "Resources.F.Properties.CodeUri: the local stage builds only from a folder, found \"s3://bucket/key\"",
            "Resources.F.Properties.Handler: expected text, found no value",
        ]
    );
}

#[test]
fn unsupported_properties_are_all_refused_with_their_paths() {
    let error = resources(
        "    Properties: {Layers: [x], TimeOut: 3, Tracing: Active}\n    Metadata: {BuildMethod: makefile, \
         Note: x}\n    Timeout: 4\n",
    )
    .unwrap_err();
    assert!(matches!(error, TemplateError::Unsupported { .. }));
    assert!(
        error
            .to_string()
            .starts_with("the template uses settings that the local stage does not support:\n  Resources.F")
    );
    let paths: Vec<_> = error.problems().iter().map(|problem| problem.place.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "Resources.F.Properties.Layers",
            "Resources.F.Properties.TimeOut",
            "Resources.F.Metadata.BuildMethod",
            "Resources.F.Timeout"
        ]
    );
}

#[test]
fn ignored_properties_are_reported_and_the_template_is_accepted() {
    let template = resources(
        "    DependsOn: Q\n    Properties:\n      Tracing: Active\n      Policies: [!ImportValue nothing]\n      \
         Events: {Upload: {Type: S3, Properties: {Bucket: !Ref X}}}\n  \
         Q: {Type: AWS::SQS::Queue}\n  R: {Type: AWS::IAM::Role}\n  X: {Type: AWS::S3::Bucket}\n",
    )
    .unwrap();
    let found: Vec<_> =
        template.findings.iter().map(|finding| (finding.place.path.as_str(), finding.kind)).collect();
    assert_eq!(
        found,
        [
            ("Resources.F.DependsOn", FindingKind::Harmless),
            ("Resources.F.Properties.Tracing", FindingKind::NotEmulated),
            ("Resources.F.Properties.Policies", FindingKind::Harmless),
            ("Resources.F.Properties.Events.Upload", FindingKind::NotEmulated),
            ("Resources.R", FindingKind::Harmless),
            ("Resources.X", FindingKind::NotEmulated),
        ]
    );
}

#[test]
fn reference_from_a_function_to_an_unsupported_resource_is_refused() {
    let found = problems(resources(
        "    Properties: {Environment: {Variables: {BUCKET: !Ref X, ARN: !GetAtt X.Arn}}}\n  \
         X: {Type: AWS::S3::Bucket}\n",
    ));
    assert_eq!(
        found,
        [
            "Resources.F.Properties.Environment.Variables.BUCKET: the local stage does not support Ref X, \
             because it does \
             not create resources of type AWS::S3::Bucket",
            "Resources.F.Properties.Environment.Variables.ARN: the local stage does not support the attribute \
             Arn of X \
             (type AWS::S3::Bucket)",
        ]
    );
}

#[test]
fn template_without_functions_or_transform_or_with_unknown_sections_is_refused() {
    let text = "Resourcs: {}\nGlobals: {Api: {Name: x}}\nRules: {}\n";
    let found = problems(Template::parse(text, Path::new(""), &Environment::default()));
    assert_eq!(
        found,
        [
            "Transform: required, but missing; expected AWS::Serverless-2016-10-31",
            "Resources: the template has no AWS::Serverless::Function; add at least one",
            "Resourcs: unknown section; expected a section of a CloudFormation template, such as Parameters \
             or Resources",
        ]
    );
    let found = problems(Template::parse(
        "Transform: [AWS::Serverless-2016-10-31, MyMacro]\nResources:\n  A: {Properties: {}}\n",
        Path::new(""),
        &Environment::default(),
    ));
    assert_eq!(
        found[0],
        "Transform[1]: the local stage supports only AWS::Serverless-2016-10-31, found \"MyMacro\""
    );
    assert!(
        found.iter().any(|problem| problem.starts_with("Resources.A.Type: required, but missing")),
        "{found:?}"
    );
    let found = problems(with("Resources: [a]\n"));
    assert!(found[0].starts_with("Resources: expected a mapping, found a list"), "{found:?}");
}

#[test]
fn function_environment_above_4096_bytes_is_refused() {
    let found = problems(resources(&format!(
        "    Properties: {{Environment: {{Variables: {{BIG: {}}}}}}}\n",
        "x".repeat(4094)
    )));
    assert_eq!(
        found,
        ["Resources.F.Properties.Environment.Variables: the variables take 4097 bytes, but Lambda allows \
             at most 4096"]
    );
}

#[test]
fn functions_with_duplicate_or_invalid_names_are_refused() {
    let found = problems(resources(
        "    Properties: {FunctionName: same}\n  \
         G: {Type: AWS::Serverless::Function, Properties: {FunctionName: same}}\n  \
         H: {Type: AWS::Serverless::Function, Properties: {FunctionName: 'not a name'}}\n  \
         I: {Type: AWS::Serverless::Function, Properties: {Handler: bootstrap}}\n",
    ));
    assert_eq!(
        found,
        [
            "Resources.G: the function's name same is already the name of F; choose another name",
            "Resources.H.Properties.FunctionName: expected a name of 1 to 64 letters, digits, - and _, found \"not a \
             name\"",
            "Resources.I.Metadata.BuildProperties.Binary: required, but missing; expected the name of the \
             function's Cargo binary",
        ]
    );
}

#[test]
fn resource_whose_condition_is_false_is_omitted() {
    let template = with(
        "Conditions: {Yes: !Equals [a, a], No: !Equals [a, b]}
Resources:
  F: {Type: AWS::Serverless::Function, Condition: Yes}
  G: {Type: AWS::Serverless::Function, Condition: No, Properties: {Layers: [x]}}
",
    )
    .unwrap();
    assert_eq!(template.functions.len(), 1);
    assert_eq!(template.functions[0].logical_id, "F");
    let found = problems(resources("    Condition: [x]\n"));
    assert_eq!(found[0], "Resources.F.Condition: expected the name of a condition in Conditions");
}

#[test]
fn unused_globals_metadata_and_resource_types_are_reported_as_findings() {
    let text = "Transform: AWS::Serverless-2016-10-31
Globals:
  Api: {Cors: x}
Rules: {}
Resources:
  F:
    Type: AWS::Serverless::Function
    Metadata: {cfn-lint: x}
    Properties: {Runtime: provided.al2, Handler: f, CodeUri: ., ReservedConcurrentExecutions: 0}
  P: {Type: AWS::Lambda::Permission}
  D: {Type: AWS::ApiGatewayV2::Deployment}
  N: {Type: AWS::SNS::Topic}
  L: {Type: AWS::Logs::LogGroup}
  S: {Type: AWS::Scheduler::Schedule}
";
    let template = Template::parse(text, Path::new(""), &Environment::default()).unwrap();
    assert_eq!(template.functions[0].reserved_concurrency, Some(0));
    let found: Vec<_> =
        template.findings.iter().map(|finding| (finding.place.path.as_str(), finding.kind)).collect();
    assert_eq!(
        found,
        [
            ("Globals.Api", FindingKind::Harmless),
            ("Rules", FindingKind::Harmless),
            ("Resources.F.Metadata.cfn-lint", FindingKind::Harmless),
            ("Resources.P", FindingKind::Harmless),
            ("Resources.D", FindingKind::Harmless),
            ("Resources.N", FindingKind::NotEmulated),
            ("Resources.L", FindingKind::Harmless),
            ("Resources.S", FindingKind::NotEmulated),
        ]
    );
}

#[test]
fn schedules_are_read_from_function_events_and_rules() {
    let template = resources(
        "    Properties:
      Events:
        Often: {Type: Schedule, Properties: {Schedule: rate(5 minutes), Name: often, Input: '{}'}}
        Off: {Type: Schedule, Properties: {Schedule: rate(5 minutes), Enabled: false}}
        Daily: {Type: ScheduleV2, Properties: {ScheduleExpression: cron(0 12 * * ? *)}}
  Nightly:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: cron(0 0 * * ? *)
      Targets: [{Arn: !GetAtt F.Arn, Id: f}, {Arn: arn:aws:sqs:us-east-1:000000000000:q, Id: q}]
  Other: {Type: AWS::Events::Rule, Properties: {EventPattern: {source: [aws.s3]}}}
",
    )
    .unwrap();
    let found: Vec<_> = template.findings.iter().map(|finding| finding.place.path.as_str()).collect();
    assert_eq!(found, ["Resources.Nightly.Properties.Targets[1].Arn", "Resources.Other"]);
    let schedules: Vec<_> = template
        .schedules
        .iter()
        .map(|s| (s.function.as_str(), s.arn.as_str(), s.input.as_deref()))
        .collect();
    assert_eq!(
        schedules,
        [
            ("streamer-F", "arn:aws:events:us-east-1:000000000000:rule/often", Some("{}")),
            ("streamer-F", "arn:aws:scheduler:us-east-1:000000000000:schedule/default/FDaily", None),
            ("streamer-F", "arn:aws:events:us-east-1:000000000000:rule/streamer-Nightly", None),
        ]
    );
    let found = problems(resources(
        "    Properties:
      Events:
        A: {Type: Schedule, Properties: {Schedule: hourly}}
        B: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 day), ScheduleExpressionTimezone: Asia/Tokyo}}
        C: {Type: Schedule}
",
    ));
    assert_eq!(
        found,
        [
            "Resources.F.Properties.Events.A.Properties.Schedule: invalid schedule: expected rate(…), cron(…) or \
             at(…), found \"hourly\"",
            "Resources.F.Properties.Events.B.Properties.ScheduleExpressionTimezone: local schedules support \
             only UTC, \
             found \"Asia/Tokyo\"",
            "Resources.F.Properties.Events.C.Properties: required, but missing; expected a mapping with a schedule \
             expression",
        ]
    );
}

#[test]
fn async_invoke_settings_are_read_from_the_function() {
    let template = resources(
        "    Properties:
      EventInvokeConfig:
        MaximumRetryAttempts: 1
        MaximumEventAgeInSeconds: 60
        DestinationConfig:
          OnSuccess: {Type: Lambda, Destination: !GetAtt F.Arn}
          OnFailure: {Type: SNS, Destination: 'arn:aws:sns:us-east-1:000000000000:t'}
      DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Q.Arn}
  Q: {Type: AWS::SQS::Queue}
",
    )
    .unwrap();
    let expected = AsyncSettings {
        maximum_retry_attempts: 1,
        maximum_event_age: Duration::from_secs(60),
        on_success: Some("arn:aws:lambda:us-east-1:000000000000:function:streamer-F".to_owned()),
        on_failure: Some("arn:aws:sns:us-east-1:000000000000:t".to_owned()),
        dead_letter: Some("arn:aws:sqs:us-east-1:000000000000:streamer-Q".to_owned()),
    };
    assert_eq!(template.functions[0].asynchronous, expected);
    let topic = "Resources.F.Properties.EventInvokeConfig.DestinationConfig.OnFailure.Destination";
    assert!(template.findings.iter().any(|finding| finding.place.path == topic), "{:?}", template.findings);
    let found = problems(resources("    Properties: {EventInvokeConfig: {MaximumRetryAttempts: 3}}\n"));
    assert_eq!(
        found,
        ["Resources.F.Properties.EventInvokeConfig.MaximumRetryAttempts: expected 0 to 2 attempts, found 3",]
    );
}

#[test]
fn template_in_json_is_read() {
    let text = json!({
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {"F": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "Runtime": "provided.al2023", "Handler": "f", "CodeUri": ".", "Timeout": 7,
                "Environment": {"Variables": {"Condition": {"Fn::Sub": "${AWS::Region}"}, "OFF": false}},
            },
        }},
    });
    let template = Template::parse(&text.to_string(), Path::new(""), &Environment::default()).unwrap();
    assert_eq!(template.functions[0].timeout, Duration::from_secs(7));
    assert_eq!(template.functions[0].environment["Condition"], "us-east-1");
    assert_eq!(template.functions[0].environment["OFF"], "false");
}

#[test]
fn function_package_of_an_unsupported_type_is_refused() {
    assert_eq!(
        problems(resources("    Properties: {PackageType: Image}\n")),
        [
            "Resources.F.Properties.PackageType: the local stage runs only packages of type Zip, found \"Image\""
        ]
    );
    let found = problems(resources("    Properties: [a]\n    Metadata: x\n"));
    assert_eq!(found[0], "Resources.F.Properties: expected a mapping, found a list");
}

/// Each line of the shipped template is removed, emptied, replaced or cut off in turn. Every reported problem
/// must have a position.
#[test]
fn damaged_template_is_refused_with_positions_and_without_a_panic() {
    let text = std::fs::read_to_string("../lambdas/template.yaml").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let environment = environment(&[("JwtKey", "k")]);
    let mut refused = 0;
    for (i, line) in lines.iter().enumerate() {
        let (before, after) = (lines[..i].join("\n"), lines[i + 1..].join("\n"));
        let bare = line.split_once(": ").map_or("x", |(key, _)| key);
        for damaged in [
            format!("{before}\n{after}"),
            format!("{before}\n{bare}:\n{after}"),
            format!("{before}\n{bare}: [{{}}]\n{after}"),
            format!("{before}\n{}", &line[..line.len() / 2]),
        ] {
            if let Err(error) = Template::parse(&damaged, Path::new(""), &environment) {
                refused += 1;
                assert!(error.problems().iter().all(|problem| problem.place.line > 0), "{error}");
                assert!(!error.problems().is_empty());
            }
        }
    }
    assert!(
        refused > lines.len(),
        "most damaged templates are refused, but only {refused} of {} were",
        lines.len() * 4
    );
}
