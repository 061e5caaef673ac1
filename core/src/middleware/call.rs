use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{CallError, SharedRateLimits};
use crate::handler::Context;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::Identity;

/// A request on its way to its handler: what layers see.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// What the handler will know of it. The handler is chosen by the `action` that the last of the app's layers leaves.
    /// Renaming is for what handlers answer: a call that was renamed to a built-in action, or from one, fails.
    pub context: Context,
    /// What is asked with. A layer that changes it changes what the rest of this phase sees: what is queued is the
    /// message as it came.
    pub payload: Arc<Value>,
    /// What the call is for.
    pub phase: Phase,
    /// See [`registered`](Self::registered).
    pub(crate) registered: Option<Arc<str>>,
}

impl Call {
    /// A call for a registered action.
    #[must_use]
    pub fn new(context: Context, payload: impl Into<Arc<Value>>, phase: Phase) -> Self {
        let registered = Some(context.action.as_str().into());
        Self { context, payload: payload.into(), phase, registered }
    }

    /// The action that was asked for, whatever layers have made of it since, if it has a handler of its own or is built
    /// in. If not, it is for the app's fallback, and its name is anything that a client could think of: nothing to make a
    /// metric's dimension of.
    #[must_use]
    pub fn registered(&self) -> Option<&str> {
        self.registered.as_deref()
    }
}

/// What a [`Call`] is for.
#[derive(Clone, Debug)]
pub enum Phase {
    /// At the router: a message has come, and is answered at once or queued.
    Routing(Routing),
    /// At the processor: an attempt to run what was queued.
    Processing,
}

impl Phase {
    /// As logs and metrics say it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Routing(_) => "routing",
            Self::Processing => "processing",
        }
    }
}

/// What is known of a message besides the [`Context`]; nothing of it is kept with a queued request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Routing {
    /// Whose message it is, and what they may do: as the connection's record says.
    pub identity: Arc<Identity>,
    /// When the router took it up.
    pub received_at: Timestamp,
    /// What is expected to take longer than this is queued.
    pub async_threshold: Duration,
    pub(crate) rate_limits: Option<SharedRateLimits>,
}

impl Routing {
    /// The threshold that a router has by default.
    pub const DEFAULT_ASYNC_THRESHOLD: Duration = Duration::from_secs(5);

    /// A message that came at `received_at`, with the threshold that a router has by default.
    #[must_use]
    pub fn new(identity: impl Into<Arc<Identity>>, received_at: Timestamp) -> Self {
        let async_threshold = Self::DEFAULT_ASYNC_THRESHOLD;
        Self { identity: identity.into(), received_at, async_threshold, rate_limits: None }
    }

    /// Refuses who lacks a permission.
    pub(crate) fn require(&self, permission: &str) -> Result<(), CallError> {
        if self.identity.permissions.iter().any(|granted| granted == permission) {
            return Ok(());
        }
        let told = ErrorBody::new(ErrorCode::Forbidden, format!("The permission {permission:?} is required"));
        Err(CallError::refused(told.with_detail("permission", permission)))
    }
}

/// What became of a [`Call`]. The last two are answers in [`Phase::Routing`] alone, and decisions: the router carries
/// them out once they have come back through every layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// It is done: this is the handler's output.
    Done(Value),
    /// It is to be queued.
    Queue {
        /// How long it is expected to take: what takes long is run alone, by the worker.
        estimated_duration: Duration,
    },
    /// The action is [built in](crate::app::App::BUILT_IN_ACTIONS): it is for the router to answer.
    BuiltIn,
}
