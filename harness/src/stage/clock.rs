use std::sync::Arc;

use streamer::ports::{Clock, Timestamp};

use streamer_fakes::faults::Skew;

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
