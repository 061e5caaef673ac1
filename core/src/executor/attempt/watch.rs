//! Watches a running handler: pushes and stores its progress, saves its checkpoints, and renews the lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{Attempt, LeaseLost};
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::executor::Executor;
use crate::executor::outcome::Outcome;
use crate::handler::HandlerTask;
use crate::ids::RequestKey;
use crate::middleware::{CallError, Reply};
use crate::ports::Timestamp;
use crate::progress::{Checkpoint, ProgressError, Reports, StopReason};
use crate::protocol::Seq;
use crate::store::{Audience, Lease, Progress, RequestQueue, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

/// Wait before a failed checkpoint write is retried.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A write of a running attempt.
///
/// At most one write is in flight. Each write asks for a later lease expiry than the previous write, so that a
/// write that arrives late cannot overwrite a later write.
enum Write {
    /// Renews the lease and stores nothing else.
    Renewal,
    /// Stores the latest pushed progress, and renews the lease.
    Report,
    /// Stores a checkpoint and the latest pushed progress, and renews the lease.
    Checkpoint(PendingCheckpoint),
}

/// A checkpoint that is not saved yet. The handler waits until the checkpoint is saved or its save has failed.
struct PendingCheckpoint {
    state: Arc<Value>,
    /// Sends the result to the waiting handler.
    saved: oneshot::Sender<Result<(), ProgressError>>,
    /// Instant of the next write of the checkpoint.
    try_at: Instant,
    /// Instant after which a failed write is not retried; the handler receives an error instead.
    give_up_at: Instant,
}

/// Result of one write of a running attempt.
struct WriteResult {
    write: Write,
    /// Instant just before the write was sent.
    sent_at: Instant,
    answer: Result<Audience, StoreError>,
}

/// Times of an attempt's next push and next write, and the changes that are not pushed or stored yet.
struct Schedule {
    /// Earliest instant of the next push.
    push_at: Instant,
    /// Instant at which the latest write was sent; before the first write, the instant of the claim.
    written_at: Instant,
    /// Whether the handler can still report progress.
    reporting: bool,
    /// Whether progress has changed since the latest push.
    to_push: bool,
    /// Whether progress has changed since the latest stored report.
    to_store: bool,
    checkpoint: Option<PendingCheckpoint>,
}

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'a, Q, P, D> {
    /// Watches the handler until it finishes: pushes and stores progress, saves checkpoints, and renews the
    /// lease.
    ///
    /// Asks the handler to stop when its time is up, when a cancel is requested, or when the lease is lost. If
    /// the handler does not finish within its grace period, returns the outcome of an attempt without a result.
    pub(super) async fn watch(
        &mut self,
        task: &mut HandlerTask<Result<Reply, CallError>>,
        reports: &mut Reports,
    ) -> Result<Outcome, LeaseLost> {
        let executor = self.executor;
        let mut schedule = Schedule {
            push_at: Instant::now(),
            written_at: self.renewed_at,
            reporting: true,
            to_push: false,
            to_store: false,
            checkpoint: None,
        };
        // The write in flight. Polled together with the loop's other branches, so that a slow store delays
        // neither pushes nor a stop request.
        let mut writing: Option<BoxFuture<'_, WriteResult>> = None;
        loop {
            let stop_at = self.stop.map_or_else(|| self.handler_deadline(), |stop| stop.until);
            let is_ours = self.stop.is_none_or(|stop| stop.reason != StopReason::LeaseLost);
            let write_at = self.next_write_at(&schedule);
            tokio::select! {
                biased;
                result = task.ended() => return self.outcome(Some(result)),
                () = sleep_until(stop_at) => match self.stop {
                    None => self.stop_handler(StopReason::TimeLimitReached, reports),
                    Some(_) => return self.outcome(None),
                },
                // Disabled while a push and a write of progress are due. Otherwise a handler that reports
                // without pause would win every turn of this biased `select!`.
                changed = reports.progress.changed(),
                    if is_ours && schedule.reporting && !(schedule.to_push && schedule.to_store) =>
                {
                    // An error means that the handler has dropped its reporter. The handler may still be
                    // running.
                    schedule.reporting = changed.is_ok();
                    schedule.to_push |= schedule.reporting;
                    schedule.to_store |= schedule.reporting;
                }
                Some(checkpoint) = reports.checkpoints.recv(), if is_ours && schedule.checkpoint.is_none() => {
                    schedule.checkpoint = Some(PendingCheckpoint::new(checkpoint, executor.settings.lease));
                }
                result = output_of(&mut writing), if is_ours => {
                    writing = None;
                    self.handle_write_result(result, &mut schedule, reports);
                }
                () = sleep_until(schedule.push_at), if is_ours && schedule.to_push => {
                    schedule.to_push = false;
                    schedule.push_at = Instant::now() + executor.settings.push_interval;
                    let latest = reports.progress.borrow().clone();
                    self.push_progress(latest);
                }
                // Listed after the push branch, so that progress gets its sequence number before it is stored.
                () = sleep_until(write_at), if is_ours && writing.is_none() => {
                    writing = Some(self.next_write(&mut schedule, reports));
                }
                () = self.fan_out.advance(), if is_ours => {}
            }
        }
    }

    /// Returns the instant at which the next write is due: a renewal, a progress report or a checkpoint.
    fn next_write_at(&self, schedule: &Schedule) -> Instant {
        let settings = &self.executor.settings;
        let third = settings.lease / 3;
        let renew_at =
            (self.renewed_at + third).max(schedule.written_at + settings.store_interval.min(third));
        let store_at = if schedule.to_store {
            renew_at.min(schedule.written_at + settings.store_interval)
        } else {
            renew_at
        };
        schedule.checkpoint.as_ref().map_or(store_at, |checkpoint| store_at.min(checkpoint.try_at))
    }

    /// Starts the write that is due. A checkpoint write also stores the latest pushed progress.
    fn next_write(&mut self, schedule: &mut Schedule, reports: &Reports) -> BoxFuture<'a, WriteResult> {
        let write = match schedule.checkpoint.take_if(|checkpoint| checkpoint.try_at <= Instant::now()) {
            Some(checkpoint) => Write::Checkpoint(checkpoint),
            None if schedule.to_store => Write::Report,
            None => Write::Renewal,
        };
        // Store only progress that has been pushed. Otherwise a new subscriber would receive newer progress
        // twice: in its snapshot under the previous frame's sequence number, and in the next push.
        let pushed = self.pushed.clone();
        schedule.to_store = *reports.progress.borrow() != pushed;
        schedule.written_at = Instant::now();
        // Each write asks for a later expiry than the previous write, even if the clock jumps back. So a
        // delayed write that arrives after a later write changes nothing.
        let next = self.lease_until + Duration::from_millis(1);
        self.lease_until = next.max(self.executor.clock.now() + self.executor.settings.lease);
        let (key, lease) = (self.key.clone(), self.lease.clone());
        Box::pin(perform_write(self.executor, write, key, lease, self.lease_until, pushed, self.seq))
    }

    /// Handles the result of a write. A successful write has renewed the lease and returns the current
    /// subscribers.
    ///
    /// A failed progress write does not stop the attempt: the next write stores newer progress, and is also
    /// conditional on the epoch.
    fn handle_write_result(&mut self, result: WriteResult, schedule: &mut Schedule, reports: &mut Reports) {
        let WriteResult { write, sent_at, answer } = result;
        let error = match answer {
            Ok(Audience { subscribers, cancel_requested, part_ttls_set: _ }) => {
                self.renewed_at = sent_at;
                self.fan_out.renew(self.executor.settings.lease_holds_until(sent_at), subscribers);
                if let Write::Checkpoint(checkpoint) = write {
                    self.has_saved = true;
                    checkpoint.answer(Ok(()));
                }
                if cancel_requested {
                    self.request.cancel_requested = true;
                    self.stop_handler(StopReason::Cancelled, reports);
                }
                return;
            }
            Err(error) if error.kind() == StoreErrorKind::Fenced => {
                self.stop_handler(StopReason::LeaseLost, reports);
                // Dropped only after the stop request, so that a handler that waits for this checkpoint
                // receives `LeaseLost` as the answer.
                schedule.checkpoint = None;
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(request = %self.key, error = %Causes(&error), "lease renewal or progress write failed");
        match write {
            Write::Renewal => {}
            Write::Report => schedule.to_store = true,
            Write::Checkpoint(checkpoint) => {
                schedule.to_store = true;
                let try_at = Instant::now() + RETRY_INTERVAL;
                if error.is_transient() && try_at < checkpoint.give_up_at {
                    schedule.checkpoint = Some(PendingCheckpoint { try_at, ..checkpoint });
                } else {
                    let problem = if error.kind() == StoreErrorKind::TooLarge {
                        "was not saved because it is too large to store"
                    } else {
                        "was not saved because the write to the store failed"
                    };
                    checkpoint.answer(Err(ProgressError::Checkpoint { problem: problem.to_owned() }));
                }
            }
        }
    }
}

impl PendingCheckpoint {
    fn new(checkpoint: Checkpoint, retry_for: Duration) -> Self {
        let Checkpoint { state, saved } = checkpoint;
        let now = Instant::now();
        Self { state: Arc::new(state), saved, try_at: now, give_up_at: now + retry_for }
    }

    /// Sends the result to the handler, if the handler still waits.
    fn answer(self, saved: Result<(), ProgressError>) {
        let _ = self.saved.send(saved);
    }
}

/// Waits for the output of `future`; waits forever if `future` is `None`.
async fn output_of<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Sends one write to the store, and returns its result.
async fn perform_write<Q: RequestQueue, P, D>(
    executor: &Executor<Q, P, D>,
    write: Write,
    key: RequestKey,
    lease: Lease,
    lease_end: Timestamp,
    progress: Progress,
    seq: Seq,
) -> WriteResult {
    let (sent_at, queue) = (Instant::now(), &executor.queue);
    let lease_end = bugs::instead(Bug::LeaseNeverRenewed, lease.expires_at, lease_end);
    let answer = match &write {
        Write::Renewal => queue.renew(&key, &lease, lease_end).await,
        Write::Report => queue.progress(&key, &lease, &progress, seq, lease_end).await,
        Write::Checkpoint(checkpoint) => {
            queue.checkpoint(&key, &lease, &checkpoint.state, &progress, seq, lease_end).await
        }
    };
    WriteResult { write, sent_at, answer }
}
