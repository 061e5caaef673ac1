//! Tests of tables, event source mappings, queues and WebSocket APIs in forms that the shipped template does
//! not use.

use std::path::Path;
use std::time::Duration;

use streamer_harness::gateway::{Authorizer, Throttle};
use streamer_harness::template::{Environment, StartingPosition, Template, TemplateError};

const FUNCTION: &str = "
Transform: AWS::Serverless-2016-10-31
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties: {FunctionName: f, Runtime: provided.al2023, Handler: f, CodeUri: .}
";

const TABLE: &str = "  T:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: t
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_IMAGE}
";

fn parse(resources: &str) -> Result<Template, TemplateError> {
    Template::parse(&format!("{FUNCTION}{resources}"), Path::new(""), &Environment::default())
}

fn problems(resources: &str) -> Vec<String> {
    match parse(resources) {
        Ok(template) => panic!("the template is invalid, but it was accepted: {template:?}"),
        Err(error) => error
            .problems()
            .iter()
            .map(|problem| format!("{}: {}", problem.place.path, problem.message))
            .collect(),
    }
}

fn mapping(properties: &str) -> String {
    format!("{TABLE}  M: {{Type: AWS::Lambda::EventSourceMapping, Properties: {{{properties}}}}}\n")
}

#[test]
fn table_with_provisioned_throughput_and_local_indexes_is_read() {
    let template = parse(
        "  T:
    Type: AWS::DynamoDB::Table
    Properties:
      AttributeDefinitions: [{AttributeName: a, AttributeType: S}, {AttributeName: b, AttributeType: N}]
      KeySchema: [{AttributeName: a, KeyType: HASH}, {AttributeName: b, KeyType: RANGE}]
      ProvisionedThroughput: {ReadCapacityUnits: '5', WriteCapacityUnits: 6}
      LocalSecondaryIndexes:
        - IndexName: l
          KeySchema: [{AttributeName: a, KeyType: HASH}]
          Projection: {ProjectionType: INCLUDE, NonKeyAttributes: [x]}
      GlobalSecondaryIndexes:
        - IndexName: g
          KeySchema: [{AttributeName: b, KeyType: HASH}]
          Projection: {ProjectionType: ALL}
          ProvisionedThroughput: {ReadCapacityUnits: 1, WriteCapacityUnits: 2}
        - !Ref AWS::NoValue
      TimeToLiveSpecification: {AttributeName: ttl, Enabled: false}
",
    )
    .unwrap();
    insta::assert_debug_snapshot!(template.tables);
}

#[test]
fn table_that_dynamodb_would_refuse_is_refused_with_all_problems() {
    let found = problems(
        "  T:
    Type: AWS::DynamoDB::Table
    Properties:
      AttributeDefinitions: [{AttributeName: a, AttributeType: Z}, {AttributeName: b}]
      GlobalSecondaryIndexes: [{IndexName: g, KeySchema: [{AttributeName: c, KeyType: RANGE}]}]
      StreamSpecification: {StreamViewType: ALL}
      TimeToLiveSpecification: {Enabled: 'true'}
  U: {Type: AWS::DynamoDB::Table}
",
    );
    assert_eq!(
        found,
        [
            "Resources.T.Properties.KeySchema: expected one HASH key and at most one RANGE key, found nothing",
            "Resources.T.Properties.ProvisionedThroughput: required, but missing; add it, or set BillingMode to \
             PAY_PER_REQUEST",
            "Resources.T.Properties.AttributeDefinitions: the key attribute c has no definition; add a definition",
            "Resources.T.Properties.AttributeDefinitions: the attribute a is not a key of the table or an index; \
             remove its definition",
            "Resources.T.Properties.AttributeDefinitions[0].AttributeType: expected S, N, B, found \"Z\"",
            "Resources.T.Properties.AttributeDefinitions[1].AttributeType: required, but missing; expected S, N or B",
            "Resources.T.Properties.GlobalSecondaryIndexes[0].Projection: required, but missing; expected a mapping \
             with the property ProjectionType",
            "Resources.T.Properties.GlobalSecondaryIndexes[0].KeySchema: expected one HASH key and at most one RANGE \
             key, found RANGE",
            "Resources.T.Properties.StreamSpecification.StreamViewType: expected KEYS_ONLY, NEW_AND_OLD_IMAGES, \
             NEW_IMAGE, OLD_IMAGE, found \"ALL\"",
            "Resources.T.Properties.TimeToLiveSpecification.AttributeName: required, but missing; expected the \
             attribute that holds the expiry time",
            "Resources.U.Properties.KeySchema: expected one HASH key and at most one RANGE key, found nothing",
            "Resources.U.Properties.ProvisionedThroughput: required, but missing; add it, or set BillingMode to \
             PAY_PER_REQUEST",
        ]
    );
}

#[test]
fn event_source_mapping_resource_has_the_defaults_of_aws() {
    let template = parse(&mapping(
        "EventSourceArn: !GetAtt T.StreamArn, FunctionName: !GetAtt F.Arn, StartingPosition: LATEST",
    ))
    .unwrap();
    let mapping = &template.mappings[0];
    assert_eq!((mapping.function.as_str(), mapping.table.as_str()), ("f", "t"));
    assert_eq!(mapping.batch_size, 100);
    assert_eq!(mapping.maximum_batching_window, Duration::ZERO);
    assert_eq!(mapping.maximum_record_age, None);
    assert_eq!(mapping.maximum_retry_attempts, None);
    assert_eq!(mapping.parallelization_factor, 1);
    assert_eq!(mapping.starting_position, StartingPosition::Latest);
    assert!(
        !mapping.bisect_batch_on_function_error && !mapping.report_batch_item_failures && mapping.enabled
    );
    assert!(mapping.filter_patterns.is_empty() && mapping.on_failure.is_none());
}

#[test]
fn event_source_mapping_accepts_literal_arns_and_minus_one_as_no_limit() {
    let template = parse(&mapping(
        "EventSourceArn: 'arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2024', FunctionName: f, \
         StartingPosition: TRIM_HORIZON, MaximumRetryAttempts: -1, MaximumRecordAgeInSeconds: 60, Enabled: false, \
         MaximumBatchingWindowInSeconds: 5",
    ))
    .unwrap();
    let mapping = &template.mappings[0];
    assert_eq!(mapping.table, "t");
    assert_eq!(mapping.maximum_retry_attempts, None);
    assert_eq!(mapping.maximum_record_age, Some(Duration::from_secs(60)));
    assert_eq!(mapping.maximum_batching_window, Duration::from_secs(5));
    assert!(!mapping.enabled);
}

#[test]
fn event_source_mapping_properties_out_of_bounds_are_refused() {
    let filters: Vec<String> = (0..6).map(|i| format!("{{Pattern: '{{\"a\":[{i}]}}'}}")).collect();
    let found = problems(&mapping(&format!(
        "EventSourceArn: !GetAtt T.Arn, FunctionName: g, StartingPosition: NOW, BatchSize: 10001, \
         MaximumBatchingWindowInSeconds: 301, ParallelizationFactor: 11, MaximumRetryAttempts: 10001, \
         MaximumRecordAgeInSeconds: 59, BisectBatchOnFunctionError: maybe, FunctionResponseTypes: [All], \
         TumblingWindowInSeconds: 3, FilterCriteria: {{Filters: [{}]}}",
        filters.join(", ")
    )));
    let expected = [
        "EventSourceArn: expected the stream ARN of a table in this template, found \
         \"arn:aws:dynamodb:us-east-1:000000000000:table/t\"",
        "FunctionName: the template has no function \"g\"",
        "StartingPosition: expected TRIM_HORIZON or LATEST, found \"NOW\"",
        "BatchSize: expected 1 to 10000 records, found 10001",
        "MaximumBatchingWindowInSeconds: expected 0 to 300 seconds, found 301",
        "ParallelizationFactor: expected 1 to 10 batches, found 11",
        "MaximumRetryAttempts: expected -1 to 10000 attempts (-1: no limit), found 10001",
        "MaximumRecordAgeInSeconds: expected -1 (no limit) or 60 to 604800 seconds, found 59",
        "BisectBatchOnFunctionError: expected true or false, found \"maybe\"",
        "FunctionResponseTypes[0]: expected ReportBatchItemFailures, found \"All\"",
        "TumblingWindowInSeconds: the local stage does not support this setting, which might change how the stage \
         behaves; remove or correct it",
        "FilterCriteria.Filters: expected at most 5 filters, found 6",
    ];
    let expected: Vec<_> = expected.iter().map(|line| format!("Resources.M.Properties.{line}")).collect();
    assert_eq!(found, expected);
}

#[test]
fn event_source_mapping_requires_a_stream_and_json_filter_patterns() {
    let stream_less = TABLE.replace("      StreamSpecification: {StreamViewType: NEW_IMAGE}\n", "");
    let found = problems(&format!(
        "{stream_less}  M:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt T.StreamArn
      FunctionName: f
      StartingPosition: LATEST
      FilterCriteria: {{Filters: [{{Pattern: '['}}, {{Pattern: '[]'}}]}}
  N: {{Type: AWS::Lambda::EventSourceMapping, Properties: {{FunctionName: f, StartingPosition: LATEST}}}}
"
    ));
    assert_eq!(
        found[0],
        "Resources.M.Properties.EventSourceArn: table T has no stream; add a StreamSpecification to the table"
    );
    assert!(found[1].starts_with(
        "Resources.M.Properties.FilterCriteria.Filters[0].Pattern: expected a JSON \
         object, found invalid JSON ("
    ));
    assert_eq!(
        found[2],
        "Resources.M.Properties.FilterCriteria.Filters[1].Pattern: expected a JSON object, found another JSON value"
    );
    assert!(
        found[3].starts_with(
            "Resources.N.Properties.EventSourceArn: required, but missing; expected a stream ARN"
        )
    );
    assert_eq!(found.len(), 4);
}

#[test]
fn function_event_without_type_or_properties_is_refused() {
    let found = problems(
        "  G:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: provided.al2023
      Handler: g
      CodeUri: .
      Events: {A: {Properties: {}}, B: {Type: DynamoDB}}
",
    );
    assert_eq!(
        found,
        [
            "Resources.G.Properties.Events.A.Type: required, but missing; expected a type of event source, such as \
             DynamoDB",
            "Resources.G.Properties.Events.B.Properties: required, but missing; expected a mapping with the property \
             Stream",
        ]
    );
}

const API: &str = "  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: n, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Stage: {Type: AWS::ApiGatewayV2::Stage, Properties: {ApiId: !Ref Api, StageName: s, DefaultRouteSettings: {}}}
  I:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Api
      IntegrationType: AWS_PROXY
      TimeoutInMillis: 5000
      IntegrationUri: !Join ['', ['arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/', !GetAtt F.Arn, /invocations]]
";

fn route(id: &str, properties: &str) -> String {
    format!("  {id}: {{Type: AWS::ApiGatewayV2::Route, Properties: {{{properties}}}}}\n")
}

#[test]
fn function_reply_is_sent_only_on_routes_with_response_expression_and_route_response() {
    let target = "ApiId: !Ref Api, Target: !Join [/, [integrations, !Ref I]]";
    let both = route("A", &format!("{target}, RouteKey: a, RouteResponseSelectionExpression: $default"));
    let one = route("B", &format!("{target}, RouteKey: b, RouteResponseSelectionExpression: $default"));
    let other = route("C", &format!("{target}, RouteKey: c, AuthorizationType: NONE, ApiKeyRequired: false"));
    let response = |id: &str| {
        format!(
            "  R{id}: {{Type: AWS::ApiGatewayV2::RouteResponse, Properties: {{ApiId: !Ref Api, RouteId: !Ref {id}, \
             RouteResponseKey: $default}}}}\n"
        )
    };
    let template = parse(&format!("{API}{both}{one}{other}{}{}", response("A"), response("C"))).unwrap();
    let api = template.api.unwrap();
    let routes: Vec<_> = api.routes.iter().map(|route| (route.key.as_str(), route.route_response)).collect();
    assert_eq!(routes, [("a", true), ("b", false), ("c", false)]);
    assert_eq!(api.routes[0].integration_timeout, Duration::from_secs(5));
    assert_eq!(api.routes[0].function, "f");
    assert_eq!(api.api_id.len(), 10);
    let found: Vec<_> = template.findings.iter().map(|finding| finding.place.path.as_str()).collect();
    assert_eq!(found, ["Resources.B", "Resources.C"]);
}

const ROUTES: &str = "  C:
    Type: AWS::ApiGatewayV2::Route
    Properties:
      ApiId: !Ref Api
      RouteKey: $connect
      AuthorizationType: CUSTOM
      AuthorizerId: !Ref Auth
      Target: !Sub 'integrations/${I}'
  D: {Type: AWS::ApiGatewayV2::Route, Properties: {ApiId: !Ref Api, RouteKey: $default, Target: !Sub 'integrations/${I}'}}
  Auth:
    Type: AWS::ApiGatewayV2::Authorizer
    Properties:
      ApiId: !Ref Api
      Name: auth
      AuthorizerType: REQUEST
      AuthorizerUri: !Sub 'arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/${F.Arn}/invocations'
      IdentitySource: [route.request.querystring.token, route.request.header.Authorization]
";

#[test]
fn authorizer_and_identity_sources_are_read_from_the_template() {
    let api = parse(&format!("{API}{ROUTES}")).unwrap().api.unwrap();
    let expected = Authorizer::new("f")
        .identity_source("route.request.querystring.token")
        .identity_source("route.request.header.Authorization");
    let authorizers: Vec<_> = api.routes.into_iter().map(|route| (route.key, route.authorizer)).collect();
    assert_eq!(authorizers, [("$connect".to_owned(), Some(expected)), ("$default".to_owned(), None)]);

    let broken = ROUTES
        .replace("RouteKey: $connect", "RouteKey: hello")
        .replace("AuthorizerType: REQUEST", "AuthorizerType: JWT")
        .replace("route.request.header.Authorization", "stageVariables.a");
    let more = route(
        "E",
        "ApiId: !Ref Api, RouteKey: e, AuthorizerId: !Ref Auth, Target: !Sub 'integrations/${I}'",
    ) + &route(
        "G",
        "ApiId: !Ref Api, RouteKey: g, AuthorizationType: CUSTOM, Target: !Sub 'integrations/${I}'",
    ) + &route(
        "H",
        "ApiId: !Ref Api, RouteKey: h, AuthorizationType: AWS_IAM, Target: !Sub 'integrations/${I}'",
    ) + &route(
        "J",
        "ApiId: !Ref Api, RouteKey: $connect, AuthorizationType: CUSTOM, AuthorizerId: nobody, Target: !Sub \
         'integrations/${I}'",
    );
    insta::assert_snapshot!(problems(&format!("{API}{broken}{more}")).join("\n"));
}

#[test]
fn throttle_settings_of_the_stage_limit_the_rate_of_each_route() {
    let settings = |settings: &str| API.replace("DefaultRouteSettings: {}", settings);
    let throttles = |api: &str| -> Vec<_> {
        let api = parse(&format!("{api}{ROUTES}")).unwrap().api.unwrap();
        api.routes.into_iter().map(|route| route.throttle).collect()
    };
    assert_eq!(throttles(API), [None, None]);
    let both = settings(
        "DefaultRouteSettings: {ThrottlingRateLimit: 100, ThrottlingBurstLimit: 20, LoggingLevel: INFO}, \
         RouteSettings: {$default: {ThrottlingRateLimit: 0.5}, $connect: {DataTraceEnabled: true}}",
    );
    assert_eq!(
        throttles(&both),
        [Some(Throttle::per_second(100.0, 20)), Some(Throttle::per_second(0.5, 5_000))],
        "a route's settings override the stage's settings, and a missing burst has the account's default"
    );
    let burst = settings("RouteSettings: {$default: {ThrottlingBurstLimit: 0}}");
    assert_eq!(throttles(&burst), [None, Some(Throttle::per_second(10_000.0, 0))]);

    let broken = settings(
        "DefaultRouteSettings: {ThrottlingRateLimit: fast, ThrottlingBurstLimit: -1}, RouteSettings: {hello: {}}",
    );
    assert_eq!(
        problems(&format!("{broken}{ROUTES}")),
        [
            "Resources.Stage.Properties.DefaultRouteSettings.ThrottlingRateLimit: expected a number of requests a \
             second, found \"fast\"",
            "Resources.Stage.Properties.DefaultRouteSettings.ThrottlingBurstLimit: expected 0 to 4294967295 \
             requests, \
             found -1",
            "Resources.Stage.Properties.RouteSettings.hello: the API has no route with the key \"hello\"",
        ]
    );
}

#[test]
fn routes_and_integrations_with_unknown_targets_are_refused() {
    let missing = route("A", "ApiId: !Ref Api, RouteKey: a, Target: integrations/Nobody");
    let elsewhere =
        route("B", "ApiId: other, RouteKey: a, Target: !Sub 'integrations/${I}', AuthorizationType: JWT");
    let broken = "  J:
    Type: AWS::ApiGatewayV2::Integration
    Properties: {ApiId: !Ref Api, IntegrationType: HTTP, IntegrationUri: https://example.com}
  K:
    Type: AWS::ApiGatewayV2::Integration
    Properties: {ApiId: !Ref Api, IntegrationType: AWS_PROXY, IntegrationUri: x/functions/ghost/invocations}
  R: {Type: AWS::ApiGatewayV2::RouteResponse, Properties: {ApiId: !Ref Api, RouteId: nobody}}
";
    let found = problems(&format!("{API}{missing}{elsewhere}{broken}"));
    assert_eq!(
        found,
        [
            "Resources.A.Properties.Target: expected integrations/ followed by a Ref to an integration in \
             this template, \
             found \"integrations/Nobody\"",
            "Resources.B.Properties.ApiId: expected a Ref to an AWS::ApiGatewayV2::Api in this template, found \
             \"other\"",
            "Resources.B.Properties.AuthorizationType: the local gateway supports only NONE and CUSTOM, found \
             \"JWT\"",
            "Resources.J.Properties.IntegrationType: the local gateway supports only integrations of type AWS_PROXY, \
             found \"HTTP\"",
            "Resources.J.Properties.IntegrationUri: expected arn:…:lambda:path/2015-03-31/functions/<function \
             ARN>/invocations, found \"https://example.com\"",
            "Resources.K.Properties.IntegrationUri: the template has no function \"ghost\"",
            "Resources.R.Properties.RouteResponseKey: required, but missing; expected $default",
            "Resources.R.Properties.RouteId: expected a Ref to a route in this template, found \"nobody\"",
        ]
    );
}

#[test]
fn second_api_second_stage_and_duplicate_route_key_are_refused() {
    let route_a = route("A", "ApiId: !Ref Api, RouteKey: a, Target: !Sub 'integrations/${I}'");
    let found = problems(&format!(
        "{API}{route_a}{}  Stage2: {{Type: AWS::ApiGatewayV2::Stage, Properties: {{ApiId: !Ref Api, StageName: s2}}}}
  Api2:
    Type: AWS::ApiGatewayV2::Api
    Properties: {{Name: n, ProtocolType: WEBSOCKET, RouteSelectionExpression: x, ApiKeySelectionExpression: y}}
  Http: {{Type: AWS::ApiGatewayV2::Api, Properties: {{Name: n, ProtocolType: HTTP}}}}
",
        route_a.replace("  A:", "  B:")
    ));
    assert_eq!(
        found,
        [
            "Resources.B: the route key a is already used by route A; choose another route key",
            "Resources.Stage2: the local gateway serves one stage per API, but this is a second one; remove \
             one of them",
            "Resources.Api2: the local stage serves one WebSocket API, but this is a second one; remove one of them",
            "Resources.Http.Properties.ProtocolType: the local stage serves only APIs with ProtocolType \
             WEBSOCKET, found \
             \"HTTP\"",
        ]
    );
    let stageless = API.lines().filter(|line| !line.contains("Stage:")).collect::<Vec<_>>().join("\n");
    assert_eq!(
        problems(&format!("{stageless}\n")),
        ["Resources.Api: the API has no stage; add an AWS::ApiGatewayV2::Stage for it"]
    );
}

#[test]
fn queue_properties_are_read_as_sqs_attributes() {
    let template = parse(
        "  Q:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 60
      MessageRetentionPeriod: '1209600'
      RedrivePolicy: {deadLetterTargetArn: !GetAtt D.Arn, maxReceiveCount: 3}
      Tags: [{Key: a, Value: b}]
  D: {Type: AWS::SQS::Queue, Properties: {QueueName: dead}}
",
    )
    .unwrap();
    let [queue, dead] = &template.queues[..] else { panic!("{:?}", template.queues) };
    assert_eq!((&*queue.name, &*dead.name), ("streamer-Q", "dead"));
    assert_eq!(queue.arn, "arn:aws:sqs:us-east-1:000000000000:streamer-Q");
    let attributes: Vec<_> = queue.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":3}"#;
    let expected = [
        "MessageRetentionPeriod=1209600".to_owned(),
        format!("RedrivePolicy={policy}"),
        "VisibilityTimeout=60".to_owned(),
    ];
    assert_eq!(attributes, expected);
    assert!(dead.attributes.is_empty());
}

#[test]
fn fifo_queues_and_invalid_queue_properties_are_refused() {
    let found = problems(
        "  F1: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  F2: {Type: AWS::SQS::Queue, Properties: {QueueName: q.fifo}}
  N: {Type: AWS::SQS::Queue, Properties: {QueueName: a b}}
  V: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 43201}}
  R: {Type: AWS::SQS::Queue, Properties: {RedrivePolicy: {deadLetterTargetArn: !GetAtt V.Arn}}}
  A: {Type: AWS::SQS::Queue, Properties: {QueueName: same}}
  B: {Type: AWS::SQS::Queue, Properties: {QueueName: same}}
",
    );
    let expected = [
        "Resources.F1.Properties.FifoQueue: FIFO queues are not emulated; use a standard queue",
        "Resources.F2.Properties.QueueName: FIFO queues are not emulated; use a standard queue",
        "Resources.N.Properties.QueueName: expected a name of 1 to 80 letters, digits, - and _, found \"a b\"",
        "Resources.V.Properties.VisibilityTimeout: expected 0 to 43200 seconds, found 43201",
        "Resources.R.Properties.RedrivePolicy.maxReceiveCount: required, but missing; expected the number of \
         times that a message may be received",
        "Resources.B: the queue's name same is already the name of A; choose another name",
    ];
    assert_eq!(found, expected);
}

#[test]
fn on_failure_destination_outside_of_the_template_is_reported_as_a_finding() {
    let on_failure = "FunctionName: f, EventSourceArn: !GetAtt T.StreamArn, StartingPosition: LATEST, \
     DestinationConfig: \
         {OnFailure: {Destination: 'arn:aws:sns:us-east-1:000000000000:t'}}";
    let template = parse(&mapping(on_failure)).unwrap();
    let finding = template.findings[0].to_string();
    assert!(
        finding.contains(
            "the destination is not a queue of this template; the local stage logs the record instead"
        ),
        "{finding}"
    );
}

#[test]
fn third_reader_of_a_stream_is_reported_as_a_finding() {
    let read = "{Type: AWS::Lambda::EventSourceMapping, Properties: {FunctionName: f, EventSourceArn: !GetAtt \
                T.StreamArn, StartingPosition: LATEST}}";
    let two = parse(&format!("{TABLE}  A: {read}\n  B: {read}\n")).unwrap();
    assert_eq!(two.findings, []);
    let three = parse(&format!("{TABLE}  A: {read}\n  B: {read}\n  C: {read}\n")).unwrap();
    let [finding] = &three.findings[..] else { panic!("{:?}", three.findings) };
    assert_eq!(finding.place.path, "Resources.C.Properties");
    assert!(
        finding.meaning.starts_with(
            "this mapping is reader 3 of the stream of table t; AWS throttles more than 2 readers"
        )
    );
}

#[test]
fn event_source_mapping_with_minimal_properties_gets_the_defaults_of_aws() {
    let minimal = "FunctionName: f, EventSourceArn: !GetAtt T.StreamArn, StartingPosition: TRIM_HORIZON";
    let template = parse(&mapping(minimal)).unwrap();
    let mapping = &template.mappings[0];
    assert_eq!((mapping.batch_size, mapping.parallelization_factor), (100, 1));
    assert_eq!(mapping.maximum_batching_window, Duration::ZERO);
    assert_eq!((mapping.maximum_record_age, mapping.maximum_retry_attempts), (None, None));
    assert!(!mapping.bisect_batch_on_function_error && !mapping.report_batch_item_failures);
    assert!(mapping.enabled && mapping.filter_patterns.is_empty() && mapping.on_failure.is_none());
}
