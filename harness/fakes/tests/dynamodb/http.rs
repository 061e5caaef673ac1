//! Tests of the HTTP endpoint of the DynamoDB fake.

use std::io::Write;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use streamer_fakes::dynamodb::DynamoDb;
use tower::ServiceExt;

use super::{create_table, database};

const PUT: &str = "DynamoDB_20120810.PutItem";

async fn post(db: &DynamoDb, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, Value) {
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = db.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let headers = response.headers().clone();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    assert_eq!(headers["x-amz-crc32"], crc.sum().to_string());
    assert_eq!(headers["x-amzn-requestid"].len(), 52);
    assert_eq!(headers["content-type"], "application/x-amz-json-1.0");
    (status, serde_json::from_slice(&body).unwrap())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn item(value: &str) -> Vec<u8> {
    json!({ "TableName": "things", "Item": { "pk": { "S": "a" }, "v": { "S": value } } })
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn dynamodb_calls_over_http_and_in_process_use_the_same_database() {
    let (db, _) = database();
    create_table(&db, "things", None);
    let (status, answer) = post(&db, &[("x-amz-target", PUT)], item("over HTTP")).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({})));
    let key = aws_sdk_dynamodb::types::AttributeValue::S("a".to_owned());
    let got = db.client().get_item().table_name("things").key("pk", key).send().await.unwrap();
    assert_eq!(got.item().unwrap()["v"].as_s().unwrap(), "over HTTP");
}

#[tokio::test]
async fn dynamodb_answers_over_http_equal_answers_in_process() {
    let (one, _) = database();
    let (other, _) = database();
    let key = json!({ "TableName": "things", "Key": { "pk": { "S": "a" } } });
    let create = json!({
        "TableName": "things",
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    for (operation, body) in [
        ("CreateTable", create.to_string()),
        ("CreateTable", create.to_string()),
        ("PutItem", json!({ "TableName": "things", "Item": { "pk": { "S": "a" } } }).to_string()),
        ("GetItem", key.to_string()),
        ("GetItem", json!({ "TableName": "none", "Key": {} }).to_string()),
        ("GetItem", "{".to_owned()),
        ("DeleteItem", key.to_string()),
        ("MakeCoffee", key.to_string()),
    ] {
        let target = format!("DynamoDB_20120810.{operation}");
        let in_process = one.handle(&target, body.as_bytes());
        let (status, answer) = post(&other, &[("x-amz-target", &target)], body.into_bytes()).await;
        let expected: Value = serde_json::from_slice(&in_process.body).unwrap();
        // The table ids differ, because the test's entropy is a counter, and each HTTP answer draws a request id from
        // this counter.
        let canonical = |mut answer: Value| {
            if answer["TableDescription"].is_object() {
                answer["TableDescription"]["TableId"] = Value::Null;
            }
            answer
        };
        assert_eq!(
            (status.as_u16(), canonical(answer)),
            (in_process.status, canonical(expected)),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn gzip_body_is_inflated_up_to_16_mebibytes() {
    let (db, _) = database();
    create_table(&db, "things", None);
    let headers = [("x-amz-target", PUT), ("content-encoding", "gzip")];
    let (status, answer) = post(&db, &headers, gzip(&item(&"x".repeat(20_000)))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    let bomb = gzip(&vec![b' '; 17 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024);
    let (status, answer) = post(&db, &headers, bomb).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    let (status, answer) = post(&db, &headers, item("not gzip at all")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["__type"], "com.amazon.coral.service#SerializationException");
    let (status, _) = post(&db, &[("x-amz-target", PUT), ("content-encoding", "br")], item("x")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn body_above_16_mebibytes_is_refused_as_too_large() {
    let (db, _) = database();
    let (status, answer) = post(&db, &[("x-amz-target", PUT)], vec![b' '; 16 * 1024 * 1024 + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["__type"], "com.amazon.coral.service#RequestEntityTooLargeException");
}

#[tokio::test]
async fn invalid_http_calls_fail_with_dynamodbs_error_types() {
    let (db, _) = database();
    create_table(&db, "things", None);
    let nested = format!("{}1{}", r#"{"M":"#.repeat(50_000), "}".repeat(50_000));
    let deep_expression = format!("{}pk = :p{}", "(".repeat(4_096), ")".repeat(4_096));
    let deep = json!({
        "TableName": "things", "FilterExpression": deep_expression, "ExpressionAttributeValues": { ":p": { "S": "" } },
    });
    for (target, body, expected) in [
        (None, "{}", "UnknownOperationException"),
        (Some("DynamoDB_20120810.MakeCoffee"), "{}", "UnknownOperationException"),
        (Some("DynamoDBStreams_20120810.PutItem"), "{}", "UnknownOperationException"),
        (Some("DynamoDB_20111205.PutItem"), "{}", "UnknownOperationException"),
        (Some(PUT), "", "SerializationException"),
        (Some(PUT), "{\"TableName\":", "SerializationException"),
        (Some(PUT), "not JSON", "SerializationException"),
        (Some(PUT), "[[[[", "SerializationException"),
        (Some(PUT), &nested, "ValidationException"),
        (Some("DynamoDB_20120810.Scan"), &deep.to_string(), "ValidationException"),
    ] {
        let headers: Vec<_> = target.map(|target| ("x-amz-target", target)).into_iter().collect();
        let (status, answer) = post(&db, &headers, body.as_bytes().to_vec()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{target:?}: {answer}");
        let error = answer["__type"].as_str().unwrap().rsplit('#').next().unwrap();
        assert_eq!(error, expected, "{target:?} {}", &body[..body.len().min(40)]);
    }
}

#[tokio::test]
async fn http_get_reports_a_healthy_dynamodb_endpoint_and_http_put_is_refused() {
    let (db, _) = database();
    let response = db.router().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = to_bytes(response.into_body(), 1_000).await.unwrap();
    assert_eq!(body, "healthy: dynamodb.us-east-1.amazonaws.com ");
    let response = db.router().oneshot(Request::put("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}
