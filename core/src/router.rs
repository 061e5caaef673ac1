//! Answers client messages: runs quick requests immediately, and queues slow requests.

mod identities;
mod request_ref;
mod requests;
mod settings;
mod snapshot;

pub use settings::RouterSettings;

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, unknown_action};
use crate::connections::Connections;
use crate::deadline::REPLY_MARGIN;
use crate::handler::{Context, HandlerRuntime, HandlerTask, Verdict};
use crate::ids::{ConnectionId, RequestId};
use crate::middleware::{Call, CallError, CallErrorKind, Phase, Reply, Routing, SharedRateLimits};
use crate::ports::{Clock, Timestamp};
use crate::protocol::{ErrorBody, ErrorCode, Frame, MAX_FRAME_BYTES, Message, RejectedMessage};
use crate::store::{ConnectionStore, Identity, RateLimits, RequestQueue, StoreError, StoreErrorKind};
use crate::telemetry::Causes;
use identities::IdentityCache;
use request_ref::RequestRef;

/// Routes each client message to its handler, and returns the frame that answers the message.
///
/// A request whose handler estimates more than the [`async_threshold`](RouterSettings::async_threshold) is
/// queued. All other requests run within the invocation, and their result is the answer.
#[derive(Debug)]
pub struct Router<C, Q, P> {
    app: Arc<App>,
    connections: C,
    queue: Q,
    clients: P,
    clock: Arc<dyn Clock>,
    handler_runtime: HandlerRuntime,
    settings: RouterSettings,
    rate_limits: Option<SharedRateLimits>,
    identities: IdentityCache,
}

/// The authenticated sender of a message, with the id and the deadline of the answer.
struct Caller {
    connection: ConnectionId,
    identity: Arc<Identity>,
    /// The request id that the client chose; the gateway's id of the message if the client chose none.
    id: RequestId,
    now: Timestamp,
    /// Instant by which the router must answer the message.
    until: Instant,
}

impl<C: ConnectionStore, Q: RequestQueue, P: Connections> Router<C, Q, P> {
    /// Maximum time from the arrival of a message at the gateway until its answer: 25 s.
    ///
    /// The gateway itself times out after 29 s, with an error frame that does not name the request.
    pub const TIMEOUT: Duration = Duration::from_secs(25);
    /// Maximum delay that counts against [`TIMEOUT`](Self::TIMEOUT). The delay is the time from the arrival
    /// of a message at the gateway until the router receives the message, for example during a cold start. A
    /// longer delay counts as 10 s.
    const MAX_DELAY: Duration = Duration::from_secs(10);
    /// Maximum time that an answer waits for the update of its connection's last-activity time.
    const LAST_PING_TIMEOUT: Duration = Duration::from_secs(1);

    /// Creates a router for the actions of `app`.
    ///
    /// The router looks up senders in `connections`, queues slow requests in `queue`, sends terminal frames
    /// through `clients`, and runs handlers on the Tokio runtime of `handlers`.
    ///
    /// Pass a different runtime than the one that [`route`](Self::route) runs on. The router can then time
    /// out a handler that never awaits, although it cannot stop that handler. If such handlers block all
    /// threads of the runtime, the router runs later handlers on a new runtime with one thread, and replaces
    /// the new runtime too if handlers block it.
    #[must_use]
    pub fn new(
        app: Arc<App>,
        connections: C,
        queue: Q,
        clients: P,
        clock: Arc<dyn Clock>,
        handlers: Handle,
    ) -> Self {
        Self {
            app,
            connections,
            queue,
            clients,
            clock,
            handler_runtime: HandlerRuntime::on(handlers),
            settings: RouterSettings::default(),
            rate_limits: None,
            identities: IdentityCache::new(),
        }
    }

    /// Replaces the router's settings. Default: [`RouterSettings::default`].
    pub fn set_settings(&mut self, settings: RouterSettings) {
        self.settings = settings;
    }

    /// Sets the estimated duration above which a request is queued: see [`RouterSettings::async_threshold`].
    pub fn set_async_threshold(&mut self, threshold: Duration) {
        self.settings.async_threshold = threshold;
    }

    /// Sets the store that holds the counts of [shared rate limits](crate::middleware::RateLimit::shared).
    /// Default: none.
    ///
    /// Without a store, each router counts by itself, and a
    /// [`fail_closed`](crate::middleware::RateLimit::fail_closed) limit refuses every message. Calls of
    /// `limits` run on the current Tokio runtime, which must be the one that [`route`](Self::route) runs on.
    ///
    /// # Panics
    /// Panics if called outside of a Tokio runtime.
    pub fn set_rate_limits(&mut self, limits: impl RateLimits + 'static) {
        self.rate_limits = Some(SharedRateLimits::new(limits, Handle::current()));
    }

    /// Answers a message. Returns the JSON text of the frame to send back to the client.
    pub async fn route(&self, event: &ApiGatewayWebsocketProxyRequest) -> String {
        self.route_before(event, Timestamp::from_millis(u64::MAX)).await
    }

    /// Answers a message before `deadline`, the end of the invocation. Returns the JSON text of the frame to
    /// send back to the client.
    pub async fn route_before(&self, event: &ApiGatewayWebsocketProxyRequest, deadline: Timestamp) -> String {
        let frame = self.frame(event, deadline).await;
        let json = frame.to_json();
        if json.len() <= MAX_FRAME_BYTES {
            return json;
        }
        let request_id = frame.request_id().cloned();
        let error = if let Frame::Error { error, .. } = frame {
            error.without_details()
        } else {
            let bytes = json.len();
            let message =
                format!("The response has {bytes} bytes; the gateway carries at most {MAX_FRAME_BYTES}");
            ErrorBody::new(ErrorCode::PayloadTooLarge, message)
        };
        self.refusal(request_id, error).to_json()
    }

    async fn frame(&self, event: &ApiGatewayWebsocketProxyRequest, deadline: Timestamp) -> Frame {
        let context = &event.request_context;
        let parsed = if event.is_base64_encoded {
            let error = ErrorBody::new(ErrorCode::ValidationError, "The message must be text, not binary");
            Err(RejectedMessage { id: None, error })
        } else {
            Message::parse(event.body.as_deref().unwrap_or_default())
        };
        let message = match parsed {
            Ok(message) => message,
            Err(RejectedMessage { id, error }) => return self.refusal(id, error),
        };
        let id = message.id.clone().or_else(|| context.request_id.clone().map(RequestId::new));
        let (Some(id), Some(connection)) = (id, context.connection_id.as_deref()) else {
            tracing::error!("gateway event without request id or connection id; message refused");
            return self.refusal(message.id, internal_error());
        };
        let now = self.clock.now();
        let sent_at = Timestamp::from_millis(u64::try_from(context.request_time_epoch).unwrap_or_default());
        let delay = now.since(sent_at).min(Self::MAX_DELAY);
        let time_left = (Self::TIMEOUT - delay).min(deadline.since(now).saturating_sub(REPLY_MARGIN));
        let until = Instant::now() + time_left;
        let timed_out = |_: Elapsed| {
            let message = format!("The request took longer than {} s", (delay + time_left).as_secs());
            ErrorBody::new(ErrorCode::Timeout, message)
        };
        let connection = ConnectionId::from(connection);
        let answer = async {
            let identity = timeout_at(until, self.identify(&connection, now)).await.map_err(timed_out)??;
            let caller = Caller { connection: connection.clone(), identity, id: id.clone(), now, until };
            let (answer, ()) = tokio::join!(
                // Boxed because the SDK's futures are large.
                timeout_at(until, Box::pin(self.answer(caller, message))),
                self.update_last_ping(&connection, now, until)
            );
            if answer.is_err() {
                self.handler_runtime.replace_if_blocked().await;
            }
            answer.map_err(timed_out)?
        };
        answer.await.unwrap_or_else(|error| self.refusal(Some(id), error))
    }

    async fn answer(&self, caller: Caller, mut message: Message) -> Result<Frame, ErrorBody> {
        if !self.app.answers(&message.action) {
            return Err(unknown_action(&message.action));
        }
        let payload = Arc::new(std::mem::take(&mut message.payload));
        let replied = self.call(&caller, &message, Arc::clone(&payload)).await?;
        message.payload = Arc::unwrap_or_clone(payload);
        match replied {
            Ok(Reply::Done(data)) => Ok(response(caller.id, data)),
            Ok(Reply::Queue { estimated_duration }) => {
                self.enqueue(caller, message, estimated_duration).await
            }
            Ok(Reply::BuiltIn) => self.built_in(caller, &message).await,
            Err(error) => match error.kind() {
                CallErrorKind::Refused => Err(error.into_client_error()),
                CallErrorKind::Failed => {
                    let error = Some(error.into_client_error());
                    Ok(Frame::Response { request_id: caller.id, success: false, data: None, error })
                }
            },
        }
    }

    /// Calls the handler of a message through the app's middleware.
    ///
    /// The call runs in its own task, so that a panic fails only this message. The outer `Err` reports a
    /// panic.
    async fn call(
        &self,
        caller: &Caller,
        message: &Message,
        payload: Arc<Value>,
    ) -> Result<Result<Reply, CallError>, ErrorBody> {
        let Identity { user, tenant, .. } = &*caller.identity;
        let mut context = Context::new(
            message.action.clone(),
            caller.id.clone(),
            user.clone(),
            tenant.clone(),
            caller.connection.clone(),
        );
        context.metadata.clone_from(&message.metadata);
        context.progress.end_by(caller.until);
        let mut routing = Routing::new(Arc::clone(&caller.identity), caller.now);
        routing.async_threshold = self.settings.async_threshold;
        routing.rate_limits = self.rate_limits.clone();
        let call = Call::new(context, payload, Phase::Routing(routing));
        // Built-in actions, such as `status`, run on the router's own runtime, because a handler that never
        // awaits could block the handler runtime.
        let runtime =
            if App::is_built_in(&message.action) { Handle::current() } else { self.handler_runtime.handle() };
        let app = Arc::clone(&self.app);
        let mut task = HandlerTask::spawn(&runtime, async move { app.call(call).await });
        let replied = task.ended().await.map_err(|panic| {
            tracing::error!(request_id = %caller.id, error = %panic, "handler or middleware panicked");
            ErrorBody::processing_failed()
        })?;
        match &replied {
            Ok(_) => {}
            Err(error) if error.verdict() == Verdict::Yielded => {
                tracing::error!(
                    request_id = %caller.id,
                    "quick request yielded; only queued requests can yield"
                );
            }
            Err(error) if error.is_unexpected() => {
                tracing::warn!(request_id = %caller.id, error = %Causes(error), "request failed in the router");
            }
            Err(error) => tracing::debug!(request_id = %caller.id, %error, "request failed in the router"),
        }
        Ok(replied)
    }

    async fn built_in(&self, caller: Caller, message: &Message) -> Result<Frame, ErrorBody> {
        match message.action.as_str() {
            "ping" => Ok(response(caller.id, json!({"pong": true, "timestamp": caller.now.as_secs()}))),
            "status" => self.status(caller, RequestRef::parse(&message.payload)?).await,
            "subscribe" => self.subscribe(caller, RequestRef::parse_with_seq(&message.payload)?).await,
            "cancel" => self.cancel(caller, RequestRef::parse(&message.payload)?).await,
            other => Err(unknown_action(other)),
        }
    }

    /// Returns the identity of a connection, from the cache if possible, so that a quick request usually
    /// needs no read of the store.
    async fn identify(&self, connection: &ConnectionId, now: Timestamp) -> Result<Arc<Identity>, ErrorBody> {
        let identity = match self.identities.get(connection, now) {
            Some(identity) => identity,
            None => match self.connections.get(connection).await {
                Ok(Some(found)) => self.identities.insert(found, now),
                Ok(None) => {
                    return Err(ErrorBody::new(
                        ErrorCode::Unauthorized,
                        "The connection is unknown; connect again",
                    ));
                }
                Err(error) => {
                    tracing::error!(
                        %connection, error = %Causes(&error),
                        "connection record could not be read; message refused"
                    );
                    return Err(internal_error());
                }
            },
        };
        if identity.expires_at <= now {
            return Err(ErrorBody::new(
                ErrorCode::Unauthorized,
                "The token has expired; connect again with a new token",
            ));
        }
        Ok(identity)
    }

    /// Updates the connection's last-activity time, at most once a minute, concurrently with the answer.
    ///
    /// The answer waits for the update, because Lambda freezes the process once the answer is returned. An
    /// update that hangs delays the answer by at most one second, and never past `until`. A failed update
    /// does not affect the answer.
    async fn update_last_ping(&self, connection: &ConnectionId, now: Timestamp, until: Instant) {
        if !self.identities.mark_ping_if_due(connection, now) {
            return;
        }
        let until = until.min(Instant::now() + Self::LAST_PING_TIMEOUT);
        match timeout_at(until, Box::pin(self.connections.update_last_ping(connection, now))).await {
            Ok(Ok(())) => {}
            // The connection's record has been deleted. Without a cache entry, the router refuses the next
            // message of the connection as unknown.
            Ok(Err(error)) if error.kind() == StoreErrorKind::NotFound => self.identities.remove(connection),
            Ok(Err(error)) => {
                tracing::warn!(%connection, error = %Causes(&error), "last-activity update failed");
            }
            Err(_) => tracing::warn!(%connection, "last-activity update timed out"),
        }
    }

    fn refusal(&self, request_id: Option<RequestId>, error: ErrorBody) -> Frame {
        Frame::Error { request_id, error, timestamp: self.clock.now().as_secs(), seq: None }
    }
}

fn response(request_id: RequestId, data: Value) -> Frame {
    Frame::Response { request_id, success: true, data: Some(data), error: None }
}

fn internal_error() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "Internal server error; try again")
}

fn store_failed(id: &RequestId, error: &StoreError) -> ErrorBody {
    if error.kind() == StoreErrorKind::TooLarge {
        return ErrorBody::new(ErrorCode::PayloadTooLarge, "The request is too large to store");
    }
    tracing::error!(request_id = %id, error = %Causes(error), "store operation failed");
    internal_error()
}
