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
    pub async fn answer(
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

/// Whether a connection's end cancels its requests that nobody else listens to: `CANCEL_ON_DISCONNECT`, `true` or `false`,
/// default `false`.
pub(super) fn cancel_on_disconnect(environment: &mut Environment<'_>) -> bool {
    environment.or_default("CANCEL_ON_DISCONNECT", false, "true or false")
}

/// The `disconnect` function as it runs on Lambda.
pub type LambdaDisconnect = Disconnect<DynamoConnectionStore, DynamoRequestQueue>;

/// What the `disconnect` function has read from its environment.
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
        let client = setup.aws.dated_by(&host.clock).dynamodb();
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
