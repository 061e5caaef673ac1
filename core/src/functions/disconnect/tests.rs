use aws_sdk_dynamodb::Client;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::{DeleteItemError, DeleteItemOutput};
use aws_sdk_dynamodb::operation::query::{QueryError, QueryOutput};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use serde_json::json;

use super::*;
use crate::functions::test_world::{At, unresponsive_dynamodb};
use crate::store::Identity;
use crate::store::dynamodb::{
    DynamoConnectionStore, DynamoRequestQueue, Item, QueueSettings, connection_item,
};

const OK: &str = r#"{"statusCode":200,"headers":{},"multiValueHeaders":{},"isBase64Encoded":false}"#;

/// Returns the gateway's `$disconnect` event for a client that closed its socket without a status code.
fn event() -> ApiGatewayWebsocketProxyRequest {
    let headers = json!({
        "Host": "abcde12345.execute-api.eu-west-1.amazonaws.com",
        "X-Forwarded-For": "",
        "x-api-key": "",
        "x-restapi": "",
    });
    let event = json!({
        "headers": headers,
        "multiValueHeaders": headers,
        "requestContext": {
            "routeKey": "$disconnect",
            "disconnectStatusCode": 1005,
            "eventType": "DISCONNECT",
            "extendedRequestId": "R1kmxc2VNjMCFIA=",
            "requestTime": "09/Feb/2024:18:23:30 +0000",
            "messageDirection": "IN",
            "disconnectReason": "Client-side close frame status not set",
            "stage": "prod",
            "connectedAt": 1_707_503_008_941_u64,
            "requestTimeEpoch": 1_707_503_010_486_u64,
            "identity": {"sourceIp": "192.0.2.1"},
            "requestId": "R1kmxc2VNjMCFIA=",
            "domainName": "abcde12345.execute-api.eu-west-1.amazonaws.com",
            "connectionId": "R1kmxcLQtjMCFxw=",
            "apiId": "abcde12345",
        },
        "isBase64Encoded": false,
    });
    serde_json::from_value(event).unwrap()
}

fn stored() -> Item {
    connection_item::encode(&Connection {
        id: "R1kmxcLQtjMCFxw=".into(),
        identity: Identity {
            user: "ann".into(),
            tenant: "acme".into(),
            permissions: Vec::new(),
            expires_at: Timestamp::from_secs(1_707_506_609),
        },
        endpoint: "https://api.example/prod".into(),
        connected_at: Timestamp::from_millis(1_707_503_009_250),
        last_ping: Timestamp::from_millis(1_707_503_009_250),
        metadata: [].into(),
    })
}

/// Returns a mock of the connections table that accepts only one call, the deletion of the connection in
/// [`event`]. The mock returns `old` as the deleted item.
fn table_of(old: Option<Item>) -> Rule {
    mock!(Client::delete_item)
        .match_requests(|delete| {
            delete.table_name() == Some("connections")
                && delete.key().is_some_and(|key| {
                    key["connection_id"] == AttributeValue::S("R1kmxcLQtjMCFxw=".to_owned())
                })
        })
        .then_output(move || DeleteItemOutput::builder().set_attributes(old.clone()).build())
}

#[derive(Debug, Default)]
struct RecordedMetrics(Mutex<Vec<String>>);

impl MetricSink for RecordedMetrics {
    fn write(&self, line: &MetricLine) {
        self.0.lock().unwrap().push(line.to_json());
    }
}

/// Handles a disconnect event for a connection that has no requests. Returns the reply and the metric lines.
async fn outcome(rule: &Rule, event: &ApiGatewayWebsocketProxyRequest) -> (String, Vec<String>) {
    let no_requests = mock!(Client::query)
        .match_requests(|query| query.index_name() == Some("connection-requests"))
        .then_output(|| QueryOutput::builder().build());
    outcome_with(rule, &no_requests, event).await
}

async fn outcome_with(
    delete: &Rule,
    query: &Rule,
    event: &ApiGatewayWebsocketProxyRequest,
) -> (String, Vec<String>) {
    let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [delete, query]);
    let now = Timestamp::from_millis(1_707_503_010_500);
    let connections = DynamoConnectionStore::new(client.clone(), "connections");
    let queue = DynamoRequestQueue::new(client, "requests", QueueSettings::default());
    let metrics = Arc::new(RecordedMetrics::default());
    let disconnect = Disconnect::new(connections, queue, Arc::new(At(now)), metrics.clone());
    let reply = disconnect.answer(event, now + Duration::from_secs(10)).await;
    let lines = std::mem::take(&mut *metrics.0.lock().unwrap());
    (serde_json::to_string(&reply).unwrap(), lines)
}

#[tokio::test]
async fn disconnect_deletes_and_counts_the_connection_even_without_a_valid_record() {
    let mut without_user = stored();
    without_user.remove("user_id");
    let mut metrics = Vec::new();
    for old in [Some(stored()), None, Some(without_user)] {
        let rule = table_of(old);
        let (reply, lines) = outcome(&rule, &event()).await;
        assert_eq!((reply.as_str(), rule.num_calls()), (OK, 1));
        metrics.extend(lines);
    }
    insta::assert_snapshot!(metrics.join("\n"), @r#"
    {"_aws":{"Timestamp":1707503010500,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["StatusCode"]],"Metrics":[{"Name":"Disconnects","Unit":"Count"},{"Name":"SubscriptionsRemoved","Unit":"Count"},{"Name":"RequestsCancelled","Unit":"Count"},{"Name":"OpenDuration","Unit":"Milliseconds"}]}]},"StatusCode":"1005","Disconnects":1,"SubscriptionsRemoved":0,"RequestsCancelled":0,"connection":"R1kmxcLQtjMCFxw=","OpenDuration":1250}
    {"_aws":{"Timestamp":1707503010500,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["StatusCode"]],"Metrics":[{"Name":"Disconnects","Unit":"Count"},{"Name":"SubscriptionsRemoved","Unit":"Count"},{"Name":"RequestsCancelled","Unit":"Count"}]}]},"StatusCode":"1005","Disconnects":1,"SubscriptionsRemoved":0,"RequestsCancelled":0,"connection":"R1kmxcLQtjMCFxw="}
    {"_aws":{"Timestamp":1707503010500,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["StatusCode"]],"Metrics":[{"Name":"Disconnects","Unit":"Count"},{"Name":"SubscriptionsRemoved","Unit":"Count"},{"Name":"RequestsCancelled","Unit":"Count"}]}]},"StatusCode":"1005","Disconnects":1,"SubscriptionsRemoved":0,"RequestsCancelled":0,"connection":"R1kmxcLQtjMCFxw="}
    "#);
}

#[tokio::test(start_paused = true)]
async fn disconnect_is_answered_with_200_and_counted_even_if_the_store_fails() {
    let failing =
        mock!(Client::delete_item).then_error(|| DeleteItemError::unhandled("the table is unreachable"));
    let failing_list = mock!(Client::query).then_error(|| QueryError::unhandled("the table is unreachable"));
    let (reply, lines) = outcome_with(&failing, &failing_list, &event()).await;
    assert_eq!((reply.as_str(), lines.len()), (OK, 1));
    assert_eq!((failing.num_calls(), failing_list.num_calls()), (1, 1));
}

#[tokio::test]
async fn disconnect_event_without_a_connection_id_deletes_nothing() {
    let mut event = event();
    event.request_context.connection_id = None;
    let rule = table_of(None);
    assert_eq!(outcome(&rule, &event).await, (OK.to_owned(), vec![]));
    assert_eq!(rule.num_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn disconnect_returns_before_its_deadline_if_the_tables_do_not_respond() {
    let client = unresponsive_dynamodb();
    let now = Timestamp::from_millis(1_707_503_010_500);
    let connections = DynamoConnectionStore::new(client.clone(), "connections");
    let queue = DynamoRequestQueue::new(client, "requests", QueueSettings::default());
    let metrics = Arc::new(RecordedMetrics::default());
    let disconnect = Disconnect::new(connections, queue, Arc::new(At(now)), metrics.clone());
    let started = tokio::time::Instant::now();
    disconnect.answer(&event(), now + Duration::from_secs(10)).await;
    assert_eq!(started.elapsed(), Duration::from_millis(9_500));
    assert_eq!(metrics.0.lock().unwrap().len(), 1, "a disconnect that runs out of time is counted");
}

#[test]
fn close_codes_map_to_exactly_twelve_metric_dimension_values() {
    let codes = (-5..70_000).map(|code| status_code(Some(code)));
    let different: std::collections::BTreeSet<&str> = codes.chain([status_code(None)]).collect();
    assert_eq!(different.len(), 12);
}
