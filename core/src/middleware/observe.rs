//! Observation of finished calls, for the layers [`Logging`](super::Logging) and [`Metrics`](super::Metrics).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tower::{BoxError, service_fn};

use super::{Call, CallError, CallErrorKind, Next, Reply, Step};
use crate::ids::{ConnectionId, RequestId};
use crate::protocol::ErrorCode;

/// A call that has finished, panicked or been abandoned.
pub(super) struct FinishedCall<'a> {
    pub(super) info: &'a CallInfo,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// Facts about a call, recorded before the call ran.
pub(super) struct CallInfo {
    pub(super) action: String,
    /// Action of the call for metrics; `None` for an action that only the fallback handles.
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
    /// The call was dropped: the time limit of the router or of the invocation was reached, or an outer layer
    /// cancelled it.
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
        match CallError::classify(&**error).map(|known| (known.kind, known.client_error.code)) {
            Some((CallErrorKind::Refused, code)) => Self::Refused(code),
            Some((CallErrorKind::Failed, code)) => Self::Failed(code),
            None => Self::Failed(ErrorCode::ProcessingFailed),
        }
    }
}

/// Wraps a service so that `report` is called after each call.
///
/// The returned service is always ready. So a call that waits for an inner layer to become ready is observed too, and
/// is reported even if the call is abandoned during this wait.
pub(super) fn observing(
    inner: impl Step,
    report: impl Fn(&FinishedCall<'_>) + Clone + Send + Sync + 'static,
) -> Next {
    let next = Next::new(inner);
    Next::new(service_fn(move |call| run_observed(call, next.clone(), report.clone())))
}

/// Runs a call and reports its outcome, even if the call panics or is dropped.
async fn run_observed(
    call: Call,
    next: Next,
    report: impl Fn(&FinishedCall<'_>) + Send,
) -> Result<Reply, BoxError> {
    let mut observation = ReportOnDrop {
        info: CallInfo {
            action: call.context.action.clone(),
            registered: call.registered.clone(),
            phase: call.phase.as_str(),
            request_id: call.context.request_id.clone(),
            connection: call.context.connection.clone(),
        },
        started: Instant::now(),
        outcome: None,
        report,
    };
    let result = next.run(call).await;
    observation.outcome = Some(Outcome::of(&result));
    result
}

/// A guard that reports its call when the guard is dropped. If the outcome is still `None` at this time, the call has
/// panicked or was abandoned.
struct ReportOnDrop<T: Fn(&FinishedCall<'_>)> {
    info: CallInfo,
    started: Instant,
    outcome: Option<Outcome>,
    report: T,
}

impl<T: Fn(&FinishedCall<'_>)> Drop for ReportOnDrop<T> {
    fn drop(&mut self) {
        let without_result = || if thread::panicking() { Outcome::Panicked } else { Outcome::Abandoned };
        let outcome = self.outcome.take().unwrap_or_else(without_result);
        (self.report)(&FinishedCall { info: &self.info, outcome, took: self.started.elapsed() });
    }
}
