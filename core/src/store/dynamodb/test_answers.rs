//! Test doubles for DynamoDB: HTTP responses as DynamoDB sends them, and tables of the store operations that tests
//! run against these responses.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryPartition;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Value, json as json_value};

use super::Item;
use crate::aws::RetryTransactions;
use crate::store::StoreError;

/// A named store operation. It returns its outcome as text, so that operations of different result types fit into one
/// table.
pub(crate) type Operation<S> = (&'static str, fn(S) -> BoxFuture<'static, Result<String, StoreError>>);

macro_rules! operations {
    ($($name:literal: |$store:ident| $call:expr;)*) => {
        [$(($name, |$store| Box::pin(async move { $call.await.map(|done| format!("{done:?}")) }))),*]
    };
}
pub(crate) use operations;

/// Creates a client whose calls are answered by `rules`, with the retry classifier of the deployed functions.
pub(crate) fn client<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Client {
    mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, rules, |config| {
        // A separate partition, because otherwise all clients of a process share one retry quota.
        config.retry_partition(RetryPartition::custom("one test").build()).retry_classifier(RetryTransactions)
    })
}

/// Creates one rule for each DynamoDB operation that a store calls; every rule responds with `answer`.
pub(crate) fn every_call_answered(
    answer: impl Fn() -> HttpResponse + Clone + Send + Sync + 'static,
) -> [Rule; 8] {
    macro_rules! rule {
        ($call:ident) => {
            mock!(Client::$call).sequence().http_response(answer.clone()).repeatedly().build()
        };
    }
    [
        rule!(put_item),
        rule!(transact_write_items),
        rule!(get_item),
        rule!(batch_get_item),
        rule!(update_item),
        rule!(delete_item),
        rule!(query),
        rule!(scan),
    ]
}

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
    reason = "items of the store use only the attribute types listed in this `match`"
)]
fn wire_value(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json_value!({"S": text}),
        AttributeValue::N(digits) => json_value!({"N": digits}),
        AttributeValue::L(list) => json_value!({"L": list.iter().map(wire_value).collect::<Vec<_>>()}),
        AttributeValue::M(map) => json_value!({"M": wire_item(map)}),
        AttributeValue::Bool(is_true) => json_value!({"BOOL": is_true}),
        other => panic!("unexpected attribute type in an item: {other:?}"),
    }
}
