//! How a call ended, for the layers that tell of it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tower::{BoxError, service_fn};

use super::{Call, CallError, CallErrorKind, Next, Reply, Step};
use crate::ids::{ConnectionId, RequestId};
use crate::protocol::ErrorCode;

/// A call that has ended.
pub(super) struct Ended<'a> {
    pub(super) seen: &'a Seen,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What was seen of it as it came.
pub(super) struct Seen {
    pub(super) action: String,
    /// The name to count it by.
    pub(super) registered: Option<Arc<str>>,
    pub(super) phase: &'static str,
    pub(super) request_id: RequestId,
    pub(super) connection: ConnectionId,
}

pub(super) enum Outcome {
    Done,
    Queued,
    BuiltIn,
    Refused(ErrorCode),
    Failed(ErrorCode),
    Panicked,
    /// Nobody waits for it any more: the router's or the invocation's time was up, or an outer layer gave up.
    Abandoned,
}

impl Outcome {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Queued => "queued",
            Self::BuiltIn => "built_in",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Panicked => "panicked",
            Self::Abandoned => "abandoned",
        }
    }

    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(code) | Self::Failed(code) => Some(code.as_str()),
            Self::Done | Self::Queued | Self::BuiltIn | Self::Panicked | Self::Abandoned => None,
        }
    }

    fn of(result: &Result<Reply, BoxError>) -> Self {
        let error = match result {
            Ok(Reply::Done(_)) => return Self::Done,
            Ok(Reply::Queue { .. }) => return Self::Queued,
            Ok(Reply::BuiltIn) => return Self::BuiltIn,
            Err(error) => error,
        };
        match CallError::read(&**error).map(|read| (read.kind, read.told.code)) {
            Some((CallErrorKind::Refused, code)) => Self::Refused(code),
            Some((CallErrorKind::Failed, code)) => Self::Failed(code),
            None => Self::Failed(ErrorCode::ProcessingFailed),
        }
    }
}

/// A way on which `tell` learns how each call ended.
///
/// It is always ready: what waits for room further in has been seen, and is told of where it is given up.
pub(super) fn observing(inner: impl Step, tell: impl Fn(&Ended<'_>) + Clone + Send + Sync + 'static) -> Next {
    let next = Next::new(inner);
    Next::new(service_fn(move |call| observed(call, next.clone(), tell.clone())))
}

/// Runs the rest of a call, and tells how it ended: also where it panics, or is given up.
async fn observed(call: Call, next: Next, tell: impl Fn(&Ended<'_>) + Send) -> Result<Reply, BoxError> {
    let mut watch = Watch {
        seen: Seen {
            action: call.context.action.clone(),
            registered: call.registered.clone(),
            phase: call.phase.as_str(),
            request_id: call.context.request_id.clone(),
            connection: call.context.connection.clone(),
        },
        started: Instant::now(),
        outcome: None,
        tell,
    };
    let result = next.run(call).await;
    watch.outcome = Some(Outcome::of(&result));
    result
}

struct Watch<T: Fn(&Ended<'_>)> {
    seen: Seen,
    started: Instant,
    outcome: Option<Outcome>,
    tell: T,
}

impl<T: Fn(&Ended<'_>)> Drop for Watch<T> {
    fn drop(&mut self) {
        let unknown = || if thread::panicking() { Outcome::Panicked } else { Outcome::Abandoned };
        let outcome = self.outcome.take().unwrap_or_else(unknown);
        (self.tell)(&Ended { seen: &self.seen, outcome, took: self.started.elapsed() });
    }
}
