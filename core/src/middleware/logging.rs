use tower::Layer;

use super::observe::{FinishedCall, observing};
use super::{Next, Step};

/// A layer that logs one line per finished call at level `info`: action, phase, outcome and duration.
///
/// The outcome is `done`, `queued`, `built_in`, `refused`, `failed`, `panicked`, or `abandoned` if the time limit of
/// the router or the invocation was reached. For `refused` and `failed`, the line also has the error code that the
/// client receives. Changes that outer layers make to the reply are not visible to this layer. The duration includes
/// time that the call waited for the capacity of an inner layer.
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
