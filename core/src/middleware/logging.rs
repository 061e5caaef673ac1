use tower::Layer;

use super::observe::{Ended, observing};
use super::{Next, Step};

/// Logs one line for each call, at level `info`: its action, its phase, what became of it, and after how long.
///
/// The outcome is `done`, `queued`, `built_in`, `refused` or `failed` with the `code` that its client is told,
/// `panicked`, or `abandoned` where the time was up. Of what layers further out did it tells nothing. A call that waits
/// for room further in is logged as well, its wait included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logging;

impl<S: Step> Layer<S> for Logging {
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        observing(inner, log)
    }
}

fn log(ended: &Ended<'_>) {
    let Ended { seen, outcome, took } = ended;
    tracing::info!(
        action = seen.action,
        phase = seen.phase,
        outcome = outcome.as_str(),
        code = outcome.code(),
        duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        request_id = %seen.request_id,
        connection = %seen.connection,
        "call"
    );
}
