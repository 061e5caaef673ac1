//! The timer that decides when a stream is polled again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::source::RecordSource;

use crate::watch;

/// Timer whose ticks are whole multiples of the poll interval after the timer's creation.
///
/// If the source reports its changes, ticks at which a poll would find nothing are skipped. An idle mapping then
/// needs no timer at all.
pub(super) struct PollTimer {
    start: Instant,
    interval: Duration,
    changes: Option<watch::Receiver<u64>>,
}

impl PollTimer {
    pub(super) fn new(interval: Duration, source: &dyn RecordSource) -> Self {
        Self { start: Instant::now(), interval, changes: source.changes() }
    }

    /// Marks all changes up to now as seen. Must be called before each poll, so that a change during the poll leads
    /// to another poll.
    pub(super) fn mark_seen(&mut self) {
        self.changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }

    /// Waits for the next tick. If the last poll found nothing new (`idle`) and the source reports changes, waits
    /// first for a change or for `wake`.
    pub(super) async fn next(&mut self, idle: bool, wake: impl Future<Output = ()>) {
        if idle && let Some(changes) = &mut self.changes {
            // An error means that the source was dropped. The next poll then reports the error.
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = wake => {}
            }
        }
        // `max` prevents a division by zero; `Settings::check` rejects an interval of zero.
        let interval = self.interval.as_nanos().max(1);
        let left = interval - self.start.elapsed().as_nanos() % interval;
        sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))).await;
    }
}
