use streamer::ports::{Clock, Timestamp};
use tokio::time::Instant;

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
