use tower::Layer;

use super::observe::{FinishedCall, observing};
use super::{Next, Step};

/// A layer that logs one line per finished call at level `info`: action, phase, outcome and duration.
///
/// The outcome is `done`, `queued`, `built_in`, `refused`, `failed`, `panicked` or `abandoned`. A call is abandoned
/// if the time limit of the router or the invocation is reached, or if an outer layer drops the call. For `refused`
/// and `failed`, the line also contains the error code of the reply. If an outer layer changes the reply, the line
/// shows the reply before this change. The duration includes the time that the call waited for an inner layer, such
/// as a concurrency limit, to become ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logging;

impl<S: Step> Layer<S> for Logging {
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        observing(inner, log)
    }
}

fn log(call: &FinishedCall<'_>) {
    let FinishedCall { info, outcome, took } = call;
    tracing::info!(
        action = info.action,
        phase = info.phase,
        outcome = outcome.as_str(),
        code = outcome.code(),
        duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        request_id = %info.request_id,
        connection = %info.connection,
        "call finished"
    );
}
