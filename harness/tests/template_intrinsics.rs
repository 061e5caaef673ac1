//! Tests of CloudFormation's intrinsic functions and conditions, through the value of a function's
//! environment variable.

use std::path::Path;

use streamer_harness::template::{Environment, Template, TemplateError};

const PREAMBLE: &str = "
Transform: AWS::Serverless-2016-10-31
Parameters:
  Size: {Type: String, Default: small}
  Zones: {Type: CommaDelimitedList, Default: 'a,b,c'}
Mappings:
  Sizes:
    small: {cpu: 1, names: [x, y]}
    large: {cpu: 4, names: [z]}
Conditions:
  Large: !Equals [!Ref Size, large]
  NotLarge: !Not [!Condition Large]
  Both: !And [!Condition Large, !Condition NotLarge]
  Either: {Fn::Or: [{Condition: Large}, {Condition: NotLarge}]}
  Loop: !Not [!Condition Pool]
  Pool: !Not [!Condition Loop]
  Strange: !Sub x
  Text: yes
  Flat: !And x
  Unnamed: {Condition: [x]}
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: !Sub '${AWS::StackName}-t'
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
  Queue: {Type: AWS::SQS::Queue}
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: news}}
  Api: {Type: AWS::ApiGatewayV2::Api, Condition: Large}
  Socket:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: n, ProtocolType: WEBSOCKET, RouteSelectionExpression: x}
  Stage: {Type: AWS::ApiGatewayV2::Stage, Properties: {ApiId: !Ref Socket, StageName: prod}}
  Ring: {Type: AWS::SNS::Topic, Properties: {TopicName: !GetAtt Ringlet.TopicName}}
  Ringlet: {Type: AWS::SNS::Topic, Properties: {TopicName: !GetAtt Ring.TopicName}}
";

fn parse(value: &str, environment: &Environment) -> Result<Template, TemplateError> {
    let text = format!(
        "{PREAMBLE}  F:\n    Type: AWS::Serverless::Function\n    Properties:\n      Runtime: provided.al2023\n      \
         Handler: f\n      CodeUri: .\n      Environment:\n        Variables:\n          VALUE: {value}\n"
    );
    Template::parse(&text, Path::new(""), environment)
}

fn value(value: &str) -> Option<String> {
    parse(value, &Environment::default())
        .expect("the value resolves")
        .functions
        .remove(0)
        .environment
        .remove("VALUE")
}

fn refusal(value: &str) -> String {
    let error = parse(value, &Environment::default()).expect_err("the value does not resolve");
    let [problem] = error.problems() else { panic!("{error}") };
    assert!(
        problem.place.path.starts_with("Resources.F.Properties.Environment.Variables.VALUE"),
        "{problem}"
    );
    problem.message.clone()
}

#[test]
fn references_resolve_in_short_and_long_form() {
    for (text, expected) in [
        ("!Ref Size", "small"),
        ("{Ref: AWS::Region}", "us-east-1"),
        ("!Ref AWS::AccountId", "000000000000"),
        ("!Ref AWS::StackId", "arn:aws:cloudformation:us-east-1:000000000000:stack/streamer/local"),
        ("!Ref Table", "streamer-t"),
        ("!Ref F", "streamer-F"),
        ("!Ref Queue", "https://sqs.us-east-1.amazonaws.com/000000000000/streamer-Queue"),
        ("!Ref Topic", "arn:aws:sns:us-east-1:000000000000:news"),
        ("!GetAtt Table.Arn", "arn:aws:dynamodb:us-east-1:000000000000:table/streamer-t"),
        ("{Fn::GetAtt: [F, Arn]}", "arn:aws:lambda:us-east-1:000000000000:function:streamer-F"),
        ("!GetAtt Queue.Arn", "arn:aws:sqs:us-east-1:000000000000:streamer-Queue"),
        ("!GetAtt Queue.QueueUrl", "https://sqs.us-east-1.amazonaws.com/000000000000/streamer-Queue"),
        ("!GetAtt Topic.TopicName", "news"),
        ("!Ref Stage", "prod"),
        (
            "!Join ['', [!GetAtt Socket.ApiEndpoint, /, !Ref Stage]]",
            "wss://cjrawwzulu.execute-api.us-east-1.amazonaws.com/prod",
        ),
        ("!GetAtt Socket.ApiId", "cjrawwzulu"),
        ("!GetAtt Topic.TopicArn", "arn:aws:sns:us-east-1:000000000000:news"),
    ] {
        assert_eq!(value(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn intrinsic_functions_of_texts_and_lists_resolve() {
    for (text, expected) in [
        (
            "!Sub 'x ${Size} ${!Size} ${Table.Arn} $'",
            "x small ${Size} arn:aws:dynamodb:us-east-1:000000000000:table/streamer-t $",
        ),
        ("!Sub ['${A}-${AWS::Partition}', {A: !Ref Size}]", "small-aws"),
        ("{Fn::Sub: '${AWS::URLSuffix}'}", "amazonaws.com"),
        ("!Join ['/', [a, !Ref Size, !Ref AWS::NoValue, b]]", "a/small/b"),
        ("!Join ['', !Ref Zones]", "abc"),
        ("!Select [1, !Ref Zones]", "b"),
        ("!Select ['0', !Split ['-', 'p-q']]", "p"),
        ("!FindInMap [Sizes, !Ref Size, cpu]", "1"),
        ("!Select [1, !FindInMap [Sizes, small, names]]", "y"),
        ("!If [Large, big, !If [NotLarge, little, none]]", "little"),
        ("!If [Both, x, y]", "y"),
        ("!If [Either, x, y]", "x"),
    ] {
        assert_eq!(value(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn property_that_resolves_to_no_value_is_omitted() {
    assert_eq!(value("!Ref AWS::NoValue"), None);
    assert_eq!(value("!If [Large, x, !Ref AWS::NoValue]"), None);
}

#[test]
fn unresolvable_value_is_refused_with_its_path_and_reason() {
    for (text, message) in [
        ("!Ref Nobody", "the template has no parameter or resource Nobody"),
        ("!Ref [a]", "Ref expects the name of a parameter or resource"),
        ("!Ref Api", "the resource Api does not exist, because its Condition is false"),
        ("!GetAtt Table", "Fn::GetAtt expects a resource and an attribute, such as RequestsTable.Arn"),
        ("!GetAtt {a: b}", "Fn::GetAtt expects a resource and an attribute, such as RequestsTable.Arn"),
        ("!GetAtt [a]", "Fn::GetAtt expects a resource and an attribute, such as RequestsTable.Arn"),
        (
            "!GetAtt Table.StreamArn",
            "expected text, found the stream ARN of table Table, which is unknown until the table is created",
        ),
        ("!Sub '${Size'", "the ${ before \"Size\" has no closing }"),
        ("!Sub [a]", "Fn::Sub expects a text, or [text, mapping of variables]"),
        ("!Sub {a: b}", "Fn::Sub expects a text, or [text, mapping of variables]"),
        ("!Sub '${Zones}'", "${Zones} must be a text, but is a list"),
        ("!Sub '${AWS::NoValue}'", "${AWS::NoValue} must be a text, but is no value"),
        ("!Join ['/']", "Fn::Join expects [delimiter, list]"),
        ("!Join ['/', x]", "expected a list, found \"x\""),
        ("!Join ['/', [[x]]]", "expected text, found a list"),
        ("!Select [3, !Ref Zones]", "Fn::Select expects an index from 0 to 2, found \"3\""),
        ("!Split ['', abc]", "the delimiter of Fn::Split must not be empty"),
        ("!FindInMap [Sizes, huge, cpu]", "the template has no Mappings.Sizes.huge.cpu"),
        ("!If [Nothing, a, b]", "the template has no condition \"Nothing\""),
        ("!If [[a], a, b]", "expected the name of a condition in Conditions"),
        ("!If [Large]", "Fn::If expects [condition, value if true, value if false]"),
        (
            "!ImportValue x",
            "Fn::ImportValue cannot be resolved on the local stage; replace it by its value or by a parameter",
        ),
        ("{Ref: Size, Other: x}", "Ref must be the only key of its mapping"),
        (
            "'{{resolve:ssm:/key}}'",
            "a dynamic reference cannot be resolved locally; use a parameter that has this reference as its default",
        ),
    ] {
        assert_eq!(refusal(text), message, "{text}");
    }
}

#[test]
fn invalid_condition_is_reported_at_the_position_of_the_condition() {
    for (condition, path, message) in [
        ("Strange", "Conditions.Strange", "Fn::Sub is not a condition function; use Fn::Equals"),
        ("Text", "Conditions.Text", "expected a condition function, found \"yes\""),
        ("Flat", "Conditions.Flat", "Fn::And expects a list of conditions"),
        ("Unnamed", "Conditions.Unnamed.Condition", "expected the name of a condition in Conditions"),
        ("Loop", "Conditions.Pool.Fn::Not[0].Condition", "condition Loop refers to itself"),
    ] {
        let error = parse(&format!("!If [{condition}, a, b]"), &Environment::default()).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert_eq!(problem.place.path, path);
        assert!(problem.message.starts_with(message), "{problem}");
    }
}

#[test]
fn partition_and_url_suffix_depend_on_the_region() {
    for (region, expected) in [
        ("cn-north-1", "aws-cn amazonaws.com.cn"),
        ("us-gov-west-1", "aws-us-gov amazonaws.com"),
        ("eu-west-1", "aws amazonaws.com"),
    ] {
        let environment = Environment { region: region.to_owned(), ..Environment::default() };
        let template = parse("!Sub '${AWS::Partition} ${AWS::URLSuffix}'", &environment).unwrap();
        assert_eq!(template.functions[0].environment["VALUE"], expected);
    }
}

#[test]
fn name_that_refers_to_itself_is_refused() {
    let error = parse("!Ref Ring", &Environment::default()).unwrap_err().to_string();
    assert!(error.contains("Resources.Ringlet.Properties.TopicName"), "{error}");
    assert!(error.contains("Ring refers to itself through Ring → Ringlet → Ring"), "{error}");
}

#[test]
fn chain_of_more_than_24_names_is_refused() {
    let mut text = String::from("Transform: AWS::Serverless-2016-10-31\nResources:\n");
    for i in 0..200 {
        text.push_str(&format!(
            "  Q{i}: {{Type: AWS::SNS::Topic, Properties: {{TopicName: !GetAtt Q{}.TopicName}}}}\n",
            i + 1
        ));
    }
    text.push_str(
        "  F: {Type: AWS::Serverless::Function, Properties: {Runtime: provided.al2023, Handler: f, CodeUri: ., \
         FunctionName: !GetAtt Q0.TopicName}}\n",
    );
    let error = Template::parse(&text, Path::new(""), &Environment::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the chain of names that refer to one another is too long; expected at most 24 names"),
        "{error}"
    );
}
