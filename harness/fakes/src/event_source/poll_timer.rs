//! When to poll a source again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::source::RecordSource;

use crate::watch;

/// Polls on a grid of points in time. A poll that would find nothing has no effect, so those are left out of a source
/// that says when it changes: an idle mapping needs no timer.
pub(super) struct PollTimer {
    begun: Instant,
    interval: Duration,
    changes: Option<watch::Receiver<u64>>,
}

impl PollTimer {
    pub(super) fn new(interval: Duration, source: &dyn RecordSource) -> Self {
        Self { begun: Instant::now(), interval, changes: source.changes() }
    }

    /// Call before each poll: only a later change makes another poll worth while.
    pub(super) fn mark_seen(&mut self) {
        self.changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }

    /// Waits for the next point of the grid; if nothing new was found (`idle`), for the first after a change of the
    /// source, or after `wake`.
    pub(super) async fn next(&mut self, idle: bool, wake: impl Future<Output = ()>) {
        if idle && let Some(changes) = &mut self.changes {
            // Of a source that is gone, the next poll says so.
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = wake => {}
            }
        }
        // `Settings` refuse an interval of zero.
        let interval = self.interval.as_nanos().max(1);
        let left = interval - self.begun.elapsed().as_nanos() % interval;
        sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))).await;
    }
}
