use std::sync::Arc;

use tower::Layer;

use super::observe::{Ended, Outcome, observing};
use super::{Next, Step};
use crate::ports::{Clock, SystemClock};
use crate::telemetry::{MetricLine, MetricSink, StandardOutput};

/// Measures each call, in a line that CloudWatch makes metrics of: no call of ours, and no wait.
///
/// By `Action` and `Phase`: `Calls`; `Failures`, where the handler failed or panicked, or the time was up; `Refusals`; and
/// `Duration`, a wait for room further in included. The action is the message's, whatever a layer renames it to. All
/// actions that only the app's fallback answers are the one action `fallback`: a client could name any number.
#[derive(Clone, Debug)]
pub struct Metrics {
    sink: Arc<dyn MetricSink>,
    clock: Arc<dyn Clock>,
}

impl Metrics {
    /// Metrics on standard output, by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::to(Arc::new(StandardOutput), Arc::new(SystemClock))
    }

    /// Metrics on `sink`, each at the time that `clock` shows.
    #[must_use]
    pub fn to(sink: Arc<dyn MetricSink>, clock: Arc<dyn Clock>) -> Self {
        Self { sink, clock }
    }

    fn line(&self, ended: &Ended<'_>) -> MetricLine {
        let Ended { seen, outcome, took } = ended;
        let (failures, refusals) = match outcome {
            Outcome::Done | Outcome::Queued | Outcome::BuiltIn => (0, 0),
            Outcome::Refused(_) => (0, 1),
            Outcome::Failed(_) | Outcome::Panicked | Outcome::Abandoned => (1, 0),
        };
        let line = MetricLine::at(self.clock.now())
            .by("Action", seen.registered.as_deref().unwrap_or("fallback"))
            .by("Phase", seen.phase)
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
        observing(inner, move |ended| metrics.sink.write(&metrics.line(ended)))
    }
}
