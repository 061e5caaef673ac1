//! CloudFormation's intrinsic functions and conditions, seen through a function's environment variables.

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
        .expect("it resolves")
        .functions
        .remove(0)
        .environment
        .remove("VALUE")
}

fn refused(value: &str) -> String {
    let error = parse(value, &Environment::default()).expect_err("it does not resolve");
    let [problem] = error.problems() else { panic!("{error}") };
    assert!(
        problem.place.path.starts_with("Resources.F.Properties.Environment.Variables.VALUE"),
        "{problem}"
    );
    problem.message.clone()
}

#[test]
fn references_resolve_in_both_forms() {
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
fn functions_of_text_and_lists_resolve() {
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
fn no_value_takes_the_property_away() {
    assert_eq!(value("!Ref AWS::NoValue"), None);
    assert_eq!(value("!If [Large, x, !Ref AWS::NoValue]"), None);
}

#[test]
fn what_cannot_be_resolved_is_refused_by_its_path() {
    for (text, message) in [
        ("!Ref Nobody", "Nobody is neither a parameter nor a resource"),
        ("!Ref [a]", "Ref takes the name of a parameter or resource"),
        ("!Ref Api", "Api does not exist: its Condition is false"),
        ("!GetAtt Table", "Fn::GetAtt takes a resource and an attribute, as in RequestsTable.Arn"),
        ("!GetAtt {a: b}", "Fn::GetAtt takes a resource and an attribute, as in RequestsTable.Arn"),
        ("!GetAtt [a]", "Fn::GetAtt takes a resource and an attribute, as in RequestsTable.Arn"),
        (
            "!GetAtt Table.StreamArn",
            "expected text, found the stream ARN of Table, known only once the table is made",
        ),
        ("!Sub '${Size'", "the ${ before \"Size\" has no }"),
        ("!Sub [a]", "Fn::Sub takes text, or [text, mapping of variables]"),
        ("!Sub {a: b}", "Fn::Sub takes text, or [text, mapping of variables]"),
        ("!Sub '${Zones}'", "${Zones} must come to text, but it is a list"),
        ("!Sub '${AWS::NoValue}'", "${AWS::NoValue} must come to text, but it is nothing"),
        ("!Join ['/']", "Fn::Join takes [delimiter, list]"),
        ("!Join ['/', x]", "expected a list, found \"x\""),
        ("!Join ['/', [[x]]]", "expected text, found a list"),
        ("!Select [3, !Ref Zones]", "Fn::Select takes an index from 0 to 2, found \"3\""),
        ("!Split ['', abc]", "the delimiter of Fn::Split must not be empty"),
        ("!FindInMap [Sizes, huge, cpu]", "there is no Mappings.Sizes.huge.cpu"),
        ("!If [Nothing, a, b]", "\"Nothing\" is not one of the Conditions"),
        ("!If [[a], a, b]", "expected the name of one of the Conditions"),
        ("!If [Large]", "Fn::If takes [condition, value if true, value if false]"),
        (
            "!ImportValue x",
            "Fn::ImportValue cannot be resolved on the local stage; write the value out or make it a \
          parameter",
        ),
        ("{Ref: Size, Other: x}", "Ref must be the only key of its mapping"),
        (
            "'{{resolve:ssm:/key}}'",
            "a dynamic reference cannot be resolved locally; make it a parameter with this as its default",
        ),
    ] {
        assert_eq!(refused(text), message, "{text}");
    }
}

#[test]
fn conditions_that_are_none_are_refused_where_they_stand() {
    for (condition, path, message) in [
        ("Strange", "Conditions.Strange", "Fn::Sub is not a condition function; use Fn::Equals"),
        ("Text", "Conditions.Text", "expected a condition function, found \"yes\""),
        ("Flat", "Conditions.Flat", "Fn::And takes a list of conditions"),
        ("Unnamed", "Conditions.Unnamed.Condition", "expected the name of one of the Conditions"),
        ("Loop", "Conditions.Pool.Fn::Not[0].Condition", "condition Loop leads back to itself"),
    ] {
        let error = parse(&format!("!If [{condition}, a, b]"), &Environment::default()).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert_eq!(problem.place.path, path);
        assert!(problem.message.starts_with(message), "{problem}");
    }
}

#[test]
fn partitions_follow_from_the_region() {
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
fn names_that_lead_back_to_themselves_are_refused() {
    let error = parse("!Ref Ring", &Environment::default()).unwrap_err().to_string();
    assert!(error.contains("Resources.Ringlet.Properties.TopicName"), "{error}");
    assert!(error.contains("Ring leads back to itself: Ring → Ringlet → Ring"), "{error}");
}

#[test]
fn a_chain_of_names_is_bounded() {
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
    assert!(error.to_string().contains("more than 24 names lead from one to the next here"), "{error}");
}
