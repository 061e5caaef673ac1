use std::sync::Arc;

use streamer::ports::{Clock, Timestamp};
use tokio::time::Instant;

use streamer_fakes::faults::Skew;

/// Tokio's time from a given moment on: real, unless a test has paused it.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    epoch: Timestamp,
    started: Instant,
}

impl TokioClock {
    /// It is `epoch` now.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}

/// The clock of one environment: the stage's clock plus a skew.
#[derive(Clone, Debug)]
pub(crate) struct SkewedClock {
    stage: Arc<dyn Clock>,
    skew: Skew,
}

impl SkewedClock {
    pub(crate) const fn new(stage: Arc<dyn Clock>, skew: Skew) -> Self {
        Self { stage, skew }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        self.skew.applied(self.stage.now())
    }
}
