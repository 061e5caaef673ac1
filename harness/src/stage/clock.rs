use std::sync::Arc;

use streamer::ports::{Clock, Timestamp};
use tokio::time::Instant;

use crate::faults::Skew;

/// Tokio's time from a given moment on: real, unless a test has paused it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioClock {
    epoch: Timestamp,
    started: Instant,
}

impl TokioClock {
    /// It is `epoch` now.
    pub(crate) fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}

/// The clock of one environment, which is off from the stage's.
#[derive(Clone, Debug)]
pub(crate) struct OffClock {
    stage: Arc<dyn Clock>,
    skew: Skew,
}

impl OffClock {
    pub(crate) const fn new(stage: Arc<dyn Clock>, skew: Skew) -> Self {
        Self { stage, skew }
    }
}

impl Clock for OffClock {
    fn now(&self) -> Timestamp {
        self.skew.applied(self.stage.now())
    }
}
