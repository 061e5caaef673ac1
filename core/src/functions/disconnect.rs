#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use aws_sdk_dynamodb::config::SharedHttpClient;
use futures_util::{StreamExt as _, stream};

use super::reply::{in_time, reply};
use super::{Function, Host};
use crate::app::App;
use crate::aws::AwsEnvironment;
use crate::config::{ConfigError, Environment};
use crate::ids::ConnectionId;
use crate::ports::{Clock, Timestamp};
use crate::store::dynamodb::{DynamoConnectionStore, DynamoRequestQueue, QueueSettings};
use crate::store::{
    Cancelled, Connection, ConnectionStore, PageRequest, RequestQueue, RequestSummary, StoreError,
};
use crate::telemetry::{Causes, MetricLine, MetricSink};

/// The `disconnect` function: handles the gateway's `$disconnect` event.
///
/// It deletes the closed connection's record, and unsubscribes the connection from the requests that came over
/// the connection. The requests continue, because their client may reconnect and subscribe again. If
/// [`cancelling`](Self::cancelling) is set, the function cancels each of these requests that has no other subscriber.
///
/// The function finds the requests in an eventually consistent index, so it may miss a request that was queued just
/// before the disconnect. A missed request continues. Its first push to the closed connection fails with 410 Gone,
/// and unsubscribes the connection from the request. If the closed connection had subscribed to a request that came
/// over another connection, the first failed push of that request likewise removes the subscription.
///
/// API Gateway sends `$disconnect` on a best-effort basis. If the event is lost, or this function runs out of
/// time, failed pushes unsubscribe the connection, and DynamoDB deletes the connection's record when its TTL
/// expires. Call [`ConnectionStore::delete_stale`] to delete such records earlier. No function of Streamer calls
/// this method by itself.
#[derive(Debug)]
pub struct Disconnect<C, Q> {
    connections: C,
    queue: Q,
    clock: Arc<dyn Clock>,
    metrics: Arc<dyn MetricSink>,
    is_cancelling: bool,
}

/// Numbers of requests that one disconnect has changed.
#[derive(Debug, Default)]
struct Counts {
    unsubscribed: AtomicU64,
    cancelled: AtomicU64,
}

impl<C: ConnectionStore, Q: RequestQueue> Disconnect<C, Q> {
    /// Maximum number of requests that one disconnect examines. If the connection has more requests, only the
    /// newest are examined, and older requests are left unchanged.
    pub const MAX_REQUESTS: usize = 5_000;
    /// Maximum number of requests to which one disconnect writes concurrently.
    const CONCURRENT_WRITES: usize = 8;

    /// Creates a function that deletes closed connections from `connections`, and unsubscribes each closed
    /// connection from the requests in `queue`.
    #[must_use]
    pub fn new(connections: C, queue: Q, clock: Arc<dyn Clock>, metrics: Arc<dyn MetricSink>) -> Self {
        Self { connections, queue, clock, metrics, is_cancelling: false }
    }

    /// If `true`, a disconnect cancels the requests that came over the connection, except requests with another
    /// subscriber. Default `false`.
    #[must_use]
    pub fn cancelling(mut self, is_cancelling: bool) -> Self {
        self.is_cancelling = is_cancelling;
        self
    }

    /// Handles a `$disconnect` event. Returns the reply before `deadline`, the end of the invocation.
    ///
    /// The reply's status is always 200, because the client is gone and could not receive an error.
    pub async fn answer(
        &self,
        event: &ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> ApiGatewayProxyResponse {
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("disconnect event without connection id; ignored");
            return reply(200, None);
        };
        let now = self.clock.now();
        let counts = Counts::default();
        let mut connection = None;
        let work = async {
            tokio::join!(
                async { connection = self.delete_connection(&id).await },
                self.leave_requests(&id, &counts)
            );
        };
        if in_time(now, deadline, work).await.is_none() {
            tracing::error!(connection = %id, "disconnect timed out; cleanup is incomplete");
        }
        let mut line = MetricLine::at(now)
            .by("StatusCode", status_code(context.disconnect_status_code))
            .count("Disconnects", 1)
            .count("SubscriptionsRemoved", counts.unsubscribed.into_inner())
            .count("RequestsCancelled", counts.cancelled.into_inner())
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
                "connection closed"
            );
        }
        self.metrics.write(&line);
        reply(200, None)
    }

    /// Deletes the connection's record, and returns the deleted record.
    async fn delete_connection(&self, id: &ConnectionId) -> Option<Connection> {
        match self.connections.delete(id).await {
            Ok(Some(connection)) => Some(connection),
            Ok(None) => {
                tracing::info!(connection = %id, "connection closed; no record found");
                None
            }
            Err(error) => {
                tracing::error!(
                    connection = %id, error = %Causes(&error),
                    "deleting connection record failed, or deleted record is unreadable"
                );
                None
            }
        }
    }

    /// Unsubscribes the closed connection from the requests that came over it, and cancels requests if
    /// [`cancelling`](Self::cancelling) is set.
    async fn leave_requests(&self, id: &ConnectionId, counts: &Counts) {
        let mut page = PageRequest::first(PageRequest::MAX_LIMIT);
        for _ in 0..Self::MAX_REQUESTS / PageRequest::MAX_LIMIT {
            let listed = match self.queue.get_by_connection(id, page.clone()).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::error!(
                        connection = %id, error = %Causes(&error),
                        "requests of the connection could not be listed"
                    );
                    return;
                }
            };
            for error in &listed.unreadable {
                tracing::error!(
                    connection = %id, error = %Causes(error),
                    "request of the connection unreadable; skipped"
                );
            }
            let requests = listed.items.iter().filter(|request| self.needs_change(request, id));
            stream::iter(requests)
                .for_each_concurrent(Self::CONCURRENT_WRITES, async |request| {
                    if let Err(error) = self.leave(request, id, counts).await {
                        tracing::error!(
                            request = %request.key(), connection = %id, error = %Causes(&error),
                            "closed connection not removed from request"
                        );
                    }
                })
                .await;
            match listed.next {
                Some(next) => page = page.after(next),
                None => return,
            }
        }
        tracing::warn!(connection = %id, "connection has too many requests; oldest requests left unchanged");
    }

    /// Returns `true` if the disconnect must write to the request. Most requests in the list are terminal and
    /// delivered, and need no write.
    fn needs_change(&self, request: &RequestSummary, id: &ConnectionId) -> bool {
        request.subscribers.contains(id) || self.cancels(request, id)
    }

    /// Returns `true` if the disconnect must cancel the request: [`cancelling`](Self::cancelling) is set, the
    /// request is open, and no other connection subscribes to the request.
    fn cancels(&self, request: &RequestSummary, id: &ConnectionId) -> bool {
        self.is_cancelling
            && !request.status.is_terminal()
            && request.subscribers.iter().all(|subscriber| subscriber == id)
    }

    async fn leave(
        &self,
        request: &RequestSummary,
        id: &ConnectionId,
        counts: &Counts,
    ) -> Result<(), StoreError> {
        let key = request.key();
        // The request is cancelled before the connection is unsubscribed. The cancel leaves a terminal frame to
        // deliver to the connection. Removing the connection, the last subscriber, then completes the delivery.
        if self.cancels(request, id) {
            match self.queue.cancel_unless_subscribed(&key, id, self.clock.now()).await? {
                Cancelled::Now { .. } | Cancelled::Requested => {
                    counts.cancelled.fetch_add(1, Ordering::Relaxed);
                }
                // The request was not cancelled, because another connection has subscribed, or the request
                // has become terminal since it was listed.
                Cancelled::HasOtherSubscribers | Cancelled::Ended(_) => {}
            }
        }
        if request.subscribers.contains(id) {
            self.queue.unsubscribe(&key, id).await?;
            counts.unsubscribed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Returns the WebSocket close code as a value of a metric dimension.
///
/// Each of the listed codes, from RFC 6455, section 7.4.1, has its own value. All other codes have the value `other`,
/// because a client can send any code, and each value of a dimension creates a metric. An event without a code has
/// the value `none`.
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

/// Reads the environment variable `CANCEL_ON_DISCONNECT` (`true` or `false`, default `false`), the value for
/// [`Disconnect::cancelling`].
pub(super) fn cancel_on_disconnect(environment: &mut Environment<'_>) -> bool {
    environment.or_default("CANCEL_ON_DISCONNECT", false, "true or false")
}

/// The `disconnect` function as it runs on Lambda, where connections and requests are stored in DynamoDB.
pub type LambdaDisconnect = Disconnect<DynamoConnectionStore, DynamoRequestQueue>;

/// Settings of the `disconnect` function, from its environment variables.
#[derive(Debug)]
pub struct DisconnectSetup {
    aws: AwsEnvironment,
    connections: String,
    requests: String,
    is_cancelling: bool,
    queue_settings: QueueSettings,
}

impl Function for LambdaDisconnect {
    type Setup = DisconnectSetup;
    type Event = ApiGatewayWebsocketProxyRequest;
    type Reply = ApiGatewayProxyResponse;

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<DisconnectSetup> {
        let aws = AwsEnvironment::from_env(environment, http);
        let connections = environment.required("CONNECTIONS_TABLE");
        let requests = environment.required("REQUESTS_TABLE");
        let is_cancelling = cancel_on_disconnect(environment);
        let queue_settings = QueueSettings::from_env(environment);
        Some(DisconnectSetup { aws, connections, requests, is_cancelling, queue_settings })
    }

    async fn start(
        setup: DisconnectSetup,
        host: &Host,
        _: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        let client = setup.aws.with_clock(&host.clock).dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), setup.connections);
        let queue = DynamoRequestQueue::new(client, setup.requests, setup.queue_settings);
        let (clock, metrics) = (Arc::clone(&host.clock), Arc::clone(&host.metrics));
        Ok(Self::new(connections, queue, clock, metrics).cancelling(setup.is_cancelling))
    }

    async fn handle(
        &self,
        event: ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> Result<ApiGatewayProxyResponse, StoreError> {
        Ok(self.answer(&event, deadline).await)
    }
}
