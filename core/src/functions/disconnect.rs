use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use futures_util::{StreamExt as _, stream};

use super::{in_time, reply};
use crate::ids::ConnectionId;
use crate::ports::{Clock, Timestamp};
use crate::store::{
    Cancelled, Connection, ConnectionStore, PageRequest, RequestQueue, RequestSummary, StoreError,
};
use crate::telemetry::{Causes, MetricLine, MetricSink};

/// `$disconnect`: forgets a connection, and takes it off the requests that came over it.
///
/// They go on: their client may come back for them. Where [they are to be cancelled](Self::cancelling), those end that
/// nobody else listens to.
///
/// They are read from an index that lags a little behind: what was queued a moment before the end may not be listed
/// yet, and goes on then. From that, and from requests that came over other connections, the connection is taken off
/// by the first push that finds it gone (410).
///
/// A gateway does its best to tell of an end, and may not. Then, and where time runs out here, such a push does it for
/// all of its requests, and the connection's record expires. [`ConnectionStore::delete_stale`] is there for whoever
/// wants the record gone earlier: no function calls it.
#[derive(Debug)]
pub struct Disconnect<C, Q> {
    connections: C,
    queue: Q,
    clock: Arc<dyn Clock>,
    metrics: Arc<dyn MetricSink>,
    is_cancelling: bool,
}

/// What was done about the requests of a connection.
#[derive(Debug, Default)]
struct Left {
    unsubscribed: AtomicU64,
    cancelled: AtomicU64,
}

impl<C: ConnectionStore, Q: RequestQueue> Disconnect<C, Q> {
    /// How many requests of a connection are looked at, the newest first.
    pub const MAX_REQUESTS: usize = 5_000;
    /// How many are written at once.
    const AT_ONCE: usize = 8;

    /// Forgets connections of this store, and takes them off requests of this queue.
    #[must_use]
    pub fn new(connections: C, queue: Q, clock: Arc<dyn Clock>, metrics: Arc<dyn MetricSink>) -> Self {
        Self { connections, queue, clock, metrics, is_cancelling: false }
    }

    /// Whether requests are cancelled that came over the connection and that nobody else listens to. Default no.
    #[must_use]
    pub fn cancelling(mut self, is_cancelling: bool) -> Self {
        self.is_cancelling = is_cancelling;
        self
    }

    /// Always 200, since nobody is left to be answered. Before `deadline`, when the invocation ends, it is done.
    pub async fn handle(
        &self,
        event: &ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> ApiGatewayProxyResponse {
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("the event has no connection id");
            return reply(200, None);
        };
        let now = self.clock.now();
        let left = Left::default();
        let mut connection = None;
        let work = async {
            tokio::join!(async { connection = self.forget(&id).await }, self.leave_requests(&id, &left));
        };
        if in_time(now, deadline, work).await.is_none() {
            tracing::error!(connection = %id, "not all was done in time about the connection's end");
        }
        let mut line = MetricLine::at(now)
            .by("StatusCode", status_code(context.disconnect_status_code))
            .count("Disconnects", 1)
            .count("RequestsLeft", left.unsubscribed.into_inner())
            .count("RequestsCancelled", left.cancelled.into_inner())
            .with("connection", id.as_str());
        if let Some(connection) = connection {
            let open = now.since(connection.connected_at);
            line = line.duration("OpenDuration", open);
            tracing::info!(
                connection = %id,
                user = %connection.identity.user,
                tenant = %connection.identity.tenant,
                open_ms = u64::try_from(open.as_millis()).unwrap_or(u64::MAX),
                status_code = context.disconnect_status_code,
                reason = context.disconnect_reason,
                "disconnected"
            );
        }
        self.metrics.write(&line);
        reply(200, None)
    }

    /// Deletes the connection, and returns what it was.
    async fn forget(&self, id: &ConnectionId) -> Option<Connection> {
        match self.connections.delete(id).await {
            Ok(Some(connection)) => Some(connection),
            Ok(None) => {
                tracing::info!(connection = %id, "disconnected, and was not known");
                None
            }
            Err(error) => {
                tracing::error!(connection = %id, error = %Causes(&error), "the connection was not deleted, or cannot be read");
                None
            }
        }
    }

    /// Goes through the requests that came over the connection.
    async fn leave_requests(&self, id: &ConnectionId, left: &Left) {
        let mut page = PageRequest::first(PageRequest::MAX_LIMIT);
        for _ in 0..Self::MAX_REQUESTS / PageRequest::MAX_LIMIT {
            let listed = match self.queue.get_by_connection(id, page.clone()).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::error!(connection = %id, error = %Causes(&error), "its requests cannot be listed");
                    return;
                }
            };
            for error in &listed.unreadable {
                tracing::error!(connection = %id, error = %Causes(error), "one of its requests cannot be read");
            }
            let requests = listed.items.iter().filter(|request| self.concerns(request, id));
            stream::iter(requests)
                .for_each_concurrent(Self::AT_ONCE, async |request| {
                    if let Err(error) = self.leave(request, id, left).await {
                        tracing::error!(request = %request.key(), error = %Causes(&error), "it was not left");
                    }
                })
                .await;
            match listed.next {
                Some(next) => page = page.after(next),
                None => return,
            }
        }
        tracing::warn!(connection = %id, "it has too many requests: the oldest are left as they are");
    }

    /// Whether anything is to be done about a request: most have ended, and have been told.
    fn concerns(&self, request: &RequestSummary, id: &ConnectionId) -> bool {
        request.subscribers.contains(id) || self.cancels(request, id)
    }

    fn cancels(&self, request: &RequestSummary, id: &ConnectionId) -> bool {
        self.is_cancelling
            && !request.status.is_terminal()
            && request.subscribers.iter().all(|subscriber| subscriber == id)
    }

    async fn leave(
        &self,
        request: &RequestSummary,
        id: &ConnectionId,
        left: &Left,
    ) -> Result<(), StoreError> {
        let key = request.key();
        // First the end, which somebody has to be told of: then nobody is left, and nothing to do.
        if self.cancels(request, id) {
            match self.queue.cancel_unless_subscribed(&key, id, self.clock.now()).await? {
                Cancelled::Now { .. } | Cancelled::Requested => {
                    left.cancelled.fetch_add(1, Ordering::Relaxed);
                }
                // Somebody has come to listen since it was read.
                Cancelled::HasOtherSubscribers | Cancelled::Ended(_) => {}
            }
        }
        if request.subscribers.contains(id) {
            self.queue.unsubscribe(&key, id).await?;
            left.unsubscribed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The status code as a dimension: those that have a meaning (RFC 6455, section 7.4.1), and one for all that a client
/// may choose.
fn status_code(code: Option<i64>) -> &'static str {
    match code {
        Some(1000) => "1000",
        Some(1001) => "1001",
        Some(1002) => "1002",
        Some(1003) => "1003",
        Some(1005) => "1005",
        Some(1006) => "1006",
        Some(1007) => "1007",
        Some(1008) => "1008",
        Some(1009) => "1009",
        Some(1011) => "1011",
        Some(_) => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use std::sync::Mutex;
    use std::time::Duration;

    use aws_sdk_dynamodb::operation::delete_item::{DeleteItemError, DeleteItemOutput};
    use aws_sdk_dynamodb::operation::query::{QueryError, QueryOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use serde_json::json;

    use super::super::test_world::{At, silent};
    use super::*;
    use crate::store::Identity;
    use crate::store::dynamodb::{
        DynamoConnectionStore, DynamoRequestQueue, Item, QueueSettings, connection_item,
    };

    const OK: &str = r#"{"statusCode":200,"headers":{},"multiValueHeaders":{},"isBase64Encoded":false}"#;

    /// As the gateway sends it when a client closes its socket without a reason.
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

    /// A table that answers a deletion of the event's connection, and of no other, with `old`.
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
    struct Written(Mutex<Vec<String>>);

    impl MetricSink for Written {
        fn write(&self, line: &MetricLine) {
            self.0.lock().unwrap().push(line.to_json());
        }
    }

    /// The reply, and the metrics, of a connection without requests.
    async fn outcome(rule: &Rule, event: &ApiGatewayWebsocketProxyRequest) -> (String, Vec<String>) {
        let none = mock!(Client::query)
            .match_requests(|query| query.index_name() == Some("connection-requests"))
            .then_output(|| QueryOutput::builder().build());
        outcome_with(rule, &none, event).await
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
        let metrics = Arc::new(Written::default());
        let disconnect = Disconnect::new(connections, queue, Arc::new(At(now)), metrics.clone());
        let reply = disconnect.handle(event, now + Duration::from_secs(10)).await;
        let lines = std::mem::take(&mut *metrics.0.lock().unwrap());
        (serde_json::to_string(&reply).unwrap(), lines)
    }

    #[tokio::test]
    async fn a_connection_is_forgotten_and_counted_whether_or_not_it_was_known() {
        let mut half = stored();
        half.remove("user_id");
        let mut metrics = Vec::new();
        for old in [Some(stored()), None, Some(half)] {
            let rule = table_of(old);
            let (reply, lines) = outcome(&rule, &event()).await;
            assert_eq!((reply.as_str(), rule.num_calls()), (OK, 1));
            metrics.extend(lines);
        }
        insta::assert_snapshot!(metrics.join("\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_is_not_the_gateways_business() {
        let failing =
            mock!(Client::delete_item).then_error(|| DeleteItemError::unhandled("the table is out of reach"));
        let unlisted = mock!(Client::query).then_error(|| QueryError::unhandled("the table is out of reach"));
        let (reply, lines) = outcome_with(&failing, &unlisted, &event()).await;
        assert_eq!((reply.as_str(), lines.len()), (OK, 1));
        assert_eq!((failing.num_calls(), unlisted.num_calls()), (1, 1));
    }

    #[tokio::test]
    async fn an_event_without_a_connection_id_deletes_nothing() {
        let mut event = event();
        event.request_context.connection_id = None;
        let rule = table_of(None);
        assert_eq!(outcome(&rule, &event).await, (OK.to_owned(), vec![]));
        assert_eq!(rule.num_calls(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tables_that_do_not_answer_do_not_hold_the_function_up() {
        let client = silent();
        let now = Timestamp::from_millis(1_707_503_010_500);
        let connections = DynamoConnectionStore::new(client.clone(), "connections");
        let queue = DynamoRequestQueue::new(client, "requests", QueueSettings::default());
        let metrics = Arc::new(Written::default());
        let disconnect = Disconnect::new(connections, queue, Arc::new(At(now)), metrics.clone());
        let asked = tokio::time::Instant::now();
        disconnect.handle(&event(), now + Duration::from_secs(10)).await;
        assert_eq!(asked.elapsed(), Duration::from_millis(9_500));
        assert_eq!(metrics.0.lock().unwrap().len(), 1, "it is counted all the same");
    }

    #[test]
    fn no_client_can_choose_a_dimension() {
        let codes = (-5..70_000).map(|code| status_code(Some(code)));
        let different: std::collections::BTreeSet<&str> = codes.chain([status_code(None)]).collect();
        assert_eq!(different.len(), 12);
    }
}
