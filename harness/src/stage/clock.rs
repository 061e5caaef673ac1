use std::sync::Arc;

use streamer::ports::{Clock, Timestamp};

use streamer_fakes::faults::Skew;

/// Clock of one environment of a function: the stage's time plus a skew, which a fault sets.
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
