use std::sync::Arc;

use tower::Layer;

use super::observe::{FinishedCall, Outcome, observing};
use super::{Next, Step};
use crate::ports::{Clock, SystemClock};
use crate::telemetry::{MetricLine, MetricSink, StandardOutput};

/// A layer that writes one line of metrics per call, in CloudWatch's embedded metric format.
///
/// CloudWatch extracts the metrics from the log, so the layer makes no AWS call and does not wait. The dimensions are
/// `Action` and `Phase`. The metrics are `Calls`, `Failures`, `Refusals` and `Duration`. A call counts as a failure
/// if the handler returned an error, or if the call panicked or was abandoned. A call counts as a refusal if it was
/// rejected, or if its handler timed out. The duration includes the time that the call waited for an inner layer,
/// such as a concurrency limit, to become ready.
///
/// `Action` is the action that the client requested, even if a layer renamed the action. For every action that only
/// the app's fallback handles, the value is `fallback`, because a client can choose any number of names.
#[derive(Clone, Debug)]
pub struct Metrics {
    sink: Arc<dyn MetricSink>,
    clock: Arc<dyn Clock>,
}

impl Metrics {
    /// Creates a layer that writes metrics to standard output, with timestamps from the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self::to(Arc::new(StandardOutput), Arc::new(SystemClock))
    }

    /// Creates a layer that writes metrics to `sink`, with timestamps from `clock`.
    #[must_use]
    pub fn to(sink: Arc<dyn MetricSink>, clock: Arc<dyn Clock>) -> Self {
        Self { sink, clock }
    }

    fn line(&self, call: &FinishedCall<'_>) -> MetricLine {
        let FinishedCall { info, outcome, took } = call;
        let (failures, refusals) = match outcome {
            Outcome::Done | Outcome::Queued | Outcome::BuiltIn => (0, 0),
            Outcome::Refused(_) => (0, 1),
            Outcome::Failed(_) | Outcome::Panicked | Outcome::Abandoned => (1, 0),
        };
        let line = MetricLine::at(self.clock.now())
            .by("Action", info.registered.as_deref().unwrap_or("fallback"))
            .by("Phase", info.phase)
            .count("Calls", 1)
            .count("Failures", failures)
            .count("Refusals", refusals)
            .duration("Duration", *took)
            .with("outcome", outcome.as_str());
        match outcome.code() {
            Some(code) => line.with("code", code),
            None => line,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Step> Layer<S> for Metrics {
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        let metrics = self.clone();
        observing(inner, move |call| metrics.sink.write(&metrics.line(call)))
    }
}
