use std::sync::Arc;

use streamer::ports::{Clock, Timestamp};

use crate::faults::Skew;

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
