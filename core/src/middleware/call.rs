use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{CallError, SharedRateLimits};
use crate::handler::Context;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::Identity;

/// A request that passes through the layers to its handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Context that the handler of the call will receive.
    ///
    /// The app's layers may change `context.action`. The handler is selected by the action that the call has after
    /// the innermost of the app's layers. A call fails if a layer changes its action from or to a built-in action.
    pub context: Context,
    /// Payload of the request, as sent by the client. If a layer changes the payload, the inner layers and the
    /// handler receive the changed payload, but only in the current phase. A queued request is stored with its
    /// original payload.
    pub payload: Arc<Value>,
    /// Phase of the call: routing in the router, or processing in the processor or worker.
    pub phase: Phase,
    /// Action of the call for metrics, which [`registered`](Self::registered) returns.
    pub(crate) registered: Option<Arc<str>>,
}

impl Call {
    /// Creates a call of a registered or built-in action.
    #[must_use]
    pub fn new(context: Context, payload: impl Into<Arc<Value>>, phase: Phase) -> Self {
        let registered = Some(context.action.as_str().into());
        Self { context, payload: payload.into(), phase, registered }
    }

    /// Returns the action that the client requested, if the action has a handler or is built in; `None` if only the
    /// app's fallback handles the action.
    ///
    /// The result does not change when a layer renames the action. It is suitable as a metric dimension, because it
    /// is one of a fixed set of names. An action that only the fallback handles is excluded, because a client can
    /// choose any name.
    #[must_use]
    pub fn registered(&self) -> Option<&str> {
        self.registered.as_deref()
    }
}

/// The phase of a [`Call`]: routing of a message, or processing of a queued request.
#[derive(Clone, Debug)]
pub enum Phase {
    /// The call runs in the router. A message has arrived, and will be answered immediately or queued.
    Routing(Routing),
    /// The call runs in the processor or worker, as an attempt of a queued request.
    Processing,
}

impl Phase {
    /// Returns the name of the phase for logs and metrics: `routing` or `processing`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Routing(_) => "routing",
            Self::Processing => "processing",
        }
    }
}

/// Facts about a message that only the router has, because they are not stored with a queued request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Routing {
    /// Identity of the message's sender, with the sender's permissions, from the connection's record.
    pub identity: Arc<Identity>,
    /// Time at which the router began to process the message.
    pub received_at: Timestamp,
    /// Threshold for queueing. A request whose estimated duration is longer is queued.
    pub async_threshold: Duration,
    pub(crate) rate_limits: Option<SharedRateLimits>,
}

impl Routing {
    /// Default of [`async_threshold`](Self::async_threshold): 5 s.
    pub const DEFAULT_ASYNC_THRESHOLD: Duration = Duration::from_secs(5);

    /// Creates the routing facts of a message that arrived at `received_at`, with the default threshold.
    #[must_use]
    pub fn new(identity: impl Into<Arc<Identity>>, received_at: Timestamp) -> Self {
        let async_threshold = Self::DEFAULT_ASYNC_THRESHOLD;
        Self { identity: identity.into(), received_at, async_threshold, rate_limits: None }
    }

    /// Returns a `FORBIDDEN` error if the message's sender lacks the permission.
    pub(crate) fn require(&self, permission: &str) -> Result<(), CallError> {
        if self.identity.permissions.iter().any(|granted| granted == permission) {
            return Ok(());
        }
        let error =
            ErrorBody::new(ErrorCode::Forbidden, format!("The permission {permission:?} is required"));
        Err(CallError::refused(error.with_detail("permission", permission)))
    }
}

/// The successful result of a [`Call`].
///
/// [`Queue`](Self::Queue) and [`BuiltIn`](Self::BuiltIn) are valid only in [`Phase::Routing`]. The router queues or
/// answers the request after one of these replies has passed all layers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// The handler has succeeded with this output, which is sent to the client.
    Done(Value),
    /// The request must be queued, because its handler is expected to take long.
    Queue {
        /// Estimated duration of the handler for this request, which decides whether the processor or the worker runs
        /// the request.
        estimated_duration: Duration,
    },
    /// The action is [built in](crate::app::App::BUILT_IN_ACTIONS). The router itself answers the message.
    BuiltIn,
}
