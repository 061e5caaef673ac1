//! DynamoDB's answers, as they come over the wire.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::StatusCode;
use serde_json::{Value, json as json_value};

use super::Item;

pub(crate) fn http(status: u16, body: &Value) -> HttpResponse {
    HttpResponse::new(StatusCode::try_from(status).unwrap(), body.to_string().into())
}

pub(crate) fn error_answer(status: u16, code: &str, message: &str) -> HttpResponse {
    let body =
        json_value!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message});
    http(status, &body)
}

pub(crate) fn condition_failed(old: Option<&Item>) -> HttpResponse {
    let mut body = json_value!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    });
    if let Some(old) = old {
        body["Item"] = wire_item(old);
    }
    http(400, &body)
}

pub(crate) fn wire_item(item: &Item) -> Value {
    item.iter().map(|(name, value)| (name.clone(), wire_value(value))).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the attributes of our items have these types and no other"
)]
fn wire_value(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json_value!({"S": text}),
        AttributeValue::N(digits) => json_value!({"N": digits}),
        AttributeValue::L(list) => json_value!({"L": list.iter().map(wire_value).collect::<Vec<_>>()}),
        AttributeValue::M(map) => json_value!({"M": wire_item(map)}),
        AttributeValue::Bool(is_true) => json_value!({"BOOL": is_true}),
        other => panic!("no item of ours has a {other:?}"),
    }
}
