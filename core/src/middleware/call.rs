use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{CallError, SharedRateLimits};
use crate::handler::Context;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::Identity;

/// A request on its way through the layers to its handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Context that the handler will receive.
    ///
    /// The app's layers may change `context.action`: the action after the last of them selects the handler. A call
    /// fails if a layer changes its action from or to a built-in action.
    pub context: Context,
    /// Input of the action, as sent by the client. A change by a layer is visible to inner layers and the handler in
    /// this phase only: a queued request is stored with its original payload.
    pub payload: Arc<Value>,
    /// Phase of the call: in the router, or in an attempt to run a queued request.
    pub phase: Phase,
    /// Action for metrics: see [`registered`](Self::registered).
    pub(crate) registered: Option<Arc<str>>,
}

impl Call {
    /// Creates a call of a registered or built-in action.
    #[must_use]
    pub fn new(context: Context, payload: impl Into<Arc<Value>>, phase: Phase) -> Self {
        let registered = Some(context.action.as_str().into());
        Self { context, payload: payload.into(), phase, registered }
    }

    /// Returns the action that the client requested, if it has a handler or is built in; `None` if only the app's
    /// fallback handles it.
    ///
    /// The result does not change when a layer renames the action. Because it is one of a fixed set of names, it is
    /// suitable as a metric dimension. The name of a fallback action is not, because a client can choose any name.
    #[must_use]
    pub fn registered(&self) -> Option<&str> {
        self.registered.as_deref()
    }
}

/// The phase of a [`Call`]: routing a message, or running a queued request.
#[derive(Clone, Debug)]
pub enum Phase {
    /// In the router: a message has arrived, and will be answered immediately or queued.
    Routing(Routing),
    /// In the processor or worker: an attempt to run a queued request.
    Processing,
}

impl Phase {
    /// Returns the name of the phase in logs and metrics: `routing` or `processing`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Routing(_) => "routing",
            Self::Processing => "processing",
        }
    }
}

/// Facts about a message that are known only in the router, and are not stored with a queued request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Routing {
    /// Identity of the sender, with the granted permissions, from the record of the connection.
    pub identity: Arc<Identity>,
    /// Time at which the router began to process the message.
    pub received_at: Timestamp,
    /// Threshold for queueing: a request with a longer estimated duration is queued.
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

    /// Returns a `FORBIDDEN` error if the sender lacks a permission.
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
/// [`Queue`](Self::Queue) and [`BuiltIn`](Self::BuiltIn) are valid only in [`Phase::Routing`]. They are decisions,
/// which the router carries out after the reply has passed all layers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// The handler has finished with this output, which is sent to the client.
    Done(Value),
    /// The request must be queued, because its handler is expected to take long.
    Queue {
        /// Expected duration of the handler. A long request runs alone in the worker.
        estimated_duration: Duration,
    },
    /// The action is [built in](crate::app::App::BUILT_IN_ACTIONS). The router itself answers the message.
    BuiltIn,
}
