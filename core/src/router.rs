//! From a client's message to its answer: quick requests are run at once, slow ones are queued.

mod about;
mod identities;
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
use crate::deadline::LAST_MOMENT;
use crate::handler::{Context, HandlerRuntime, HandlerTask, Verdict};
use crate::ids::{ConnectionId, RequestId};
use crate::middleware::{Call, CallError, CallErrorKind, Phase, Reply, Routing, SharedRateLimits};
use crate::ports::{Clock, Timestamp};
use crate::protocol::{ErrorBody, ErrorCode, Frame, MAX_FRAME_BYTES, Message, RejectedMessage};
use crate::store::{ConnectionStore, Identity, RateLimits, RequestQueue, StoreError, StoreErrorKind};
use crate::telemetry::Causes;
use about::About;
use identities::Identities;

/// Routes messages to handlers.
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
    identities: Identities,
}

/// A message whose sender is known.
struct Caller {
    connection: ConnectionId,
    identity: Arc<Identity>,
    /// The client's own id for the request, or else the gateway's for the message.
    id: RequestId,
    now: Timestamp,
    /// When the answer is due.
    until: Instant,
}

impl<C: ConnectionStore, Q: RequestQueue, P: Connections> Router<C, Q, P> {
    /// The longest that an answer may take, all in all: the gateway itself gives up after 29 s, and names no request.
    pub const TIMEOUT: Duration = Duration::from_secs(25);
    /// The most of it that is taken to have passed before we saw the message, as in a cold start.
    const MAX_DELAY: Duration = Duration::from_secs(10);
    /// The longest that an answer waits for its connection's sign of life to be noted.
    const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(1);

    /// A router of `app`'s actions, that answers who is known to `connections`, queues in `queue`, tells `clients` of the end of
    /// requests that they ask about, and whose handlers run on the runtime that `handlers` belongs to.
    ///
    /// Where that is not the runtime that [`route`](Self::route) runs on, a handler that burns CPU is timed out as well. It
    /// cannot be stopped: where it holds the runtime's last thread, handlers run on a runtime of the router's own from
    /// then on, with one thread, and on another one when that is held as well.
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
            identities: Identities::new(),
        }
    }

    /// The router decides by these settings. Default: [`RouterSettings::default`].
    pub fn set_settings(&mut self, settings: RouterSettings) {
        self.settings = settings;
    }

    /// What is expected to take longer than this is queued: see [`RouterSettings::async_threshold`].
    pub fn set_async_threshold(&mut self, threshold: Duration) {
        self.settings.async_threshold = threshold;
    }

    /// Has [shared rate limits](crate::middleware::RateLimit::shared) count in `limits`. They are asked on this runtime, the
    /// one that [`route`](Self::route) runs on. Default none: each router counts for itself, and limits that
    /// [fail closed](crate::middleware::RateLimit::fail_closed) let nobody through.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn set_rate_limits(&mut self, limits: impl RateLimits + 'static) {
        self.rate_limits = Some(SharedRateLimits::new(limits, Handle::current()));
    }

    /// Answers a message with the frame that goes back to its client, as JSON.
    pub async fn route(&self, event: &ApiGatewayWebsocketProxyRequest) -> String {
        self.route_before(event, Timestamp::from_millis(u64::MAX)).await
    }

    /// Answers a message before `deadline`, when the invocation ends, with the frame that goes back to its client.
    pub async fn route_before(&self, event: &ApiGatewayWebsocketProxyRequest, deadline: Timestamp) -> String {
        let frame = self.frame(event, deadline).await;
        let json = frame.to_json();
        if json.len() <= MAX_FRAME_BYTES {
            return json;
        }
        let request_id = frame.request_id().cloned();
        let error = if let Frame::Error { error, .. } = frame {
            error.without_its_text()
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
            let error = ErrorBody::new(ErrorCode::ValidationError, "The message must be text, and is binary");
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
            tracing::error!("the event has no request id or no connection id");
            return self.refusal(message.id, internal_error());
        };
        let now = self.clock.now();
        let sent_at = Timestamp::from_millis(u64::try_from(context.request_time_epoch).unwrap_or_default());
        let delay = now.since(sent_at).min(Self::MAX_DELAY);
        let time_left = (Self::TIMEOUT - delay).min(deadline.since(now).saturating_sub(LAST_MOMENT));
        let until = Instant::now() + time_left;
        let too_late = |_: Elapsed| {
            let message = format!("The request took longer than {} s", (delay + time_left).as_secs());
            ErrorBody::new(ErrorCode::Timeout, message)
        };
        let connection = ConnectionId::from(connection);
        let answer = async {
            let identity = timeout_at(until, self.identify(&connection, now)).await.map_err(too_late)??;
            let caller = Caller { connection: connection.clone(), identity, id: id.clone(), now, until };
            let (answer, ()) = tokio::join!(
                // Boxed, since the SDK's futures are large.
                timeout_at(until, Box::pin(self.answer(caller, message))),
                self.note_sign_of_life(&connection, now, until)
            );
            if answer.is_err() {
                self.handler_runtime.replace_if_stuck().await;
            }
            answer.map_err(too_late)?
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
                CallErrorKind::Refused => Err(error.into_told()),
                CallErrorKind::Failed => {
                    let error = Some(error.into_told());
                    Ok(Frame::Response { request_id: caller.id, success: false, data: None, error })
                }
            },
        }
    }

    /// Sends a message through the app's layers to its handler, in a task of its own: a panic there is not ours.
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
        // A handler that holds its thread keeps nobody from asking how things stand.
        let runtime =
            if App::is_built_in(&message.action) { Handle::current() } else { self.handler_runtime.handle() };
        let app = Arc::clone(&self.app);
        let mut task = HandlerTask::spawn(&runtime, async move { app.call(call).await });
        let replied = task.ended().await.map_err(|panic| {
            tracing::error!(request_id = %caller.id, error = %panic, "the handler or a layer panicked");
            ErrorBody::processing_failed()
        })?;
        match &replied {
            Ok(_) => {}
            Err(error) if error.verdict() == Verdict::Yielded => {
                tracing::error!(request_id = %caller.id, "a quick request cannot go on later: its handler's estimate is too short");
            }
            Err(error) if error.is_unexpected() => {
                tracing::warn!(request_id = %caller.id, error = %Causes(error), "the request failed");
            }
            Err(error) => tracing::debug!(request_id = %caller.id, %error, "the request was refused"),
        }
        Ok(replied)
    }

    async fn built_in(&self, caller: Caller, message: &Message) -> Result<Frame, ErrorBody> {
        match message.action.as_str() {
            "ping" => Ok(response(caller.id, json!({"pong": true, "timestamp": caller.now.as_secs()}))),
            "status" => self.status(caller, About::request(&message.payload)?).await,
            "subscribe" => self.subscribe(caller, About::subscription(&message.payload)?).await,
            "cancel" => self.cancel(caller, About::request(&message.payload)?).await,
            other => Err(unknown_action(other)),
        }
    }

    /// Who is behind a connection, remembered so that quick requests need no read.
    async fn identify(&self, connection: &ConnectionId, now: Timestamp) -> Result<Arc<Identity>, ErrorBody> {
        let identity = match self.identities.get(connection, now) {
            Some(identity) => identity,
            None => match self.connections.get(connection).await {
                Ok(Some(found)) => self.identities.remember(found, now),
                Ok(None) => {
                    return Err(ErrorBody::new(ErrorCode::Unauthorized, "The connection is not known"));
                }
                Err(error) => {
                    tracing::error!(%connection, error = %Causes(&error), "the connection cannot be read");
                    return Err(internal_error());
                }
            },
        };
        if identity.expires_at <= now {
            return Err(ErrorBody::new(ErrorCode::Unauthorized, "The token has expired: connect again"));
        }
        Ok(identity)
    }

    /// Notes that a client is there, at most once a minute, while its answer is made.
    ///
    /// It is not left behind: Lambda freezes what still runs when the answer is given. So one that hangs delays that, by a
    /// second at most and never beyond `until`. One that fails changes nothing.
    async fn note_sign_of_life(&self, connection: &ConnectionId, now: Timestamp, until: Instant) {
        if !self.identities.is_ping_due(connection, now) {
            return;
        }
        let until = until.min(Instant::now() + Self::SIGN_OF_LIFE_TIMEOUT);
        match timeout_at(until, Box::pin(self.connections.update_last_ping(connection, now))).await {
            Ok(Ok(())) => {}
            // It has ended, and we had not heard: its next message is one of a connection that is not known.
            Ok(Err(error)) if error.kind() == StoreErrorKind::NotFound => self.identities.forget(connection),
            Ok(Err(error)) => {
                tracing::warn!(%connection, error = %Causes(&error), "a sign of life was not noted");
            }
            Err(_) => tracing::warn!(%connection, "a sign of life was not noted in time"),
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
    ErrorBody::new(ErrorCode::InternalError, "Something on our side went wrong: try again")
}

fn store_failed(id: &RequestId, error: &StoreError) -> ErrorBody {
    if error.kind() == StoreErrorKind::TooLarge {
        return ErrorBody::new(ErrorCode::PayloadTooLarge, "The request is larger than can be stored");
    }
    tracing::error!(request_id = %id, error = %Causes(error), "the store failed");
    internal_error()
}
