//! What an attempt does while its handler runs: it pushes and stores progress, saves checkpoints and renews the lease.

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

/// How long to wait between two tries to write.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A write of a running attempt. There is one at a time, and each asks for a later end of the lease than the one before: none
/// overwrites what a later one has said.
enum Write {
    /// Says only that the attempt lives.
    Renewal,
    Report,
    Checkpoint(Unsaved),
}

/// A checkpoint that a handler waits for.
struct Unsaved {
    state: Arc<Value>,
    saved: oneshot::Sender<Result<(), ProgressError>>,
    try_at: Instant,
    /// When its handler is told that it was not saved.
    give_up_at: Instant,
}

/// How a write went, and when it was asked for.
struct Written {
    write: Write,
    asked_at: Instant,
    answer: Result<Audience, StoreError>,
}

/// When which write is due, and what has been said since the last.
struct Pace {
    push_at: Instant,
    asked_at: Instant,
    reporting: bool,
    to_push: bool,
    to_store: bool,
    unsaved: Option<Unsaved>,
}

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'a, Q, P, D> {
    /// Pushes and stores progress, saves checkpoints and renews the lease, until the handler ends; tells it when it is to
    /// stop, and goes on meanwhile for as long as it has then.
    pub(super) async fn watch(
        &mut self,
        task: &mut HandlerTask<Result<Reply, CallError>>,
        reports: &mut Reports,
    ) -> Result<Outcome, LeaseLost> {
        let executor = self.executor;
        let mut pace = Pace {
            push_at: Instant::now(),
            asked_at: self.renewed_at,
            reporting: true,
            to_push: false,
            to_store: false,
            unsaved: None,
        };
        // Kept beside the loop, so that a store that is slow holds up nothing else.
        let mut writing: Option<BoxFuture<'_, Written>> = None;
        loop {
            let stop_at = self.stop.map_or_else(|| self.time_is_up(), |stop| stop.until);
            let is_ours = self.stop.is_none_or(|stop| stop.reason != StopReason::LeaseLost);
            let write_at = self.next_write_at(&pace);
            tokio::select! {
                biased;
                ended = task.ended() => return self.outcome(Some(ended)),
                () = sleep_until(stop_at) => match self.stop {
                    None => self.stop_handler(StopReason::TimeIsUp, reports),
                    Some(_) => return self.outcome(None),
                },
                // Not asked for while both are due: a handler that reports without end would win every turn.
                changed = reports.progress.changed(),
                    if is_ours && pace.reporting && !(pace.to_push && pace.to_store) =>
                {
                    // The handler has dropped its reporter: it may go on without saying anything more.
                    pace.reporting = changed.is_ok();
                    pace.to_push |= pace.reporting;
                    pace.to_store |= pace.reporting;
                }
                Some(checkpoint) = reports.checkpoints.recv(), if is_ours && pace.unsaved.is_none() => {
                    pace.unsaved = Some(Unsaved::new(checkpoint, executor.settings.lease));
                }
                written = running(&mut writing), if is_ours => {
                    writing = None;
                    self.written(written, &mut pace, reports);
                }
                () = sleep_until(pace.push_at), if is_ours && pace.to_push => {
                    pace.to_push = false;
                    pace.push_at = Instant::now() + executor.settings.push_interval;
                    let latest = reports.progress.borrow().clone();
                    self.push_progress(latest);
                }
                // After the push: what is stored has a number then.
                () = sleep_until(write_at), if is_ours && writing.is_none() => {
                    writing = Some(self.next_write(&mut pace, reports));
                }
                () = self.fan_out.advance(), if is_ours => {}
            }
        }
    }

    /// When the lease is to be renewed, by a report if there is one, or something is to be saved.
    fn next_write_at(&self, pace: &Pace) -> Instant {
        let settings = &self.executor.settings;
        let third = settings.lease / 3;
        let renew_at = (self.renewed_at + third).max(pace.asked_at + settings.store_interval.min(third));
        let store_at =
            if pace.to_store { renew_at.min(pace.asked_at + settings.store_interval) } else { renew_at };
        pace.unsaved.as_ref().map_or(store_at, |unsaved| store_at.min(unsaved.try_at))
    }

    /// The write that is due; a checkpoint goes along with the latest report.
    fn next_write(&mut self, pace: &mut Pace, reports: &Reports) -> BoxFuture<'a, Written> {
        let write = match pace.unsaved.take_if(|unsaved| unsaved.try_at <= Instant::now()) {
            Some(unsaved) => Write::Checkpoint(unsaved),
            None if pace.to_store => Write::Report,
            None => Write::Renewal,
        };
        // What has no number yet is not stored under that of the frame before it: who came to listen would be told it twice.
        let numbered = self.pushed.clone();
        pace.to_store = *reports.progress.borrow() != numbered;
        pace.asked_at = Instant::now();
        // Later each time, whatever the clock says: a write that arrives after those that followed it changes nothing.
        let next = self.lease_until + Duration::from_millis(1);
        self.lease_until = next.max(self.executor.clock.now() + self.executor.settings.lease);
        let (key, lease) = (self.key.clone(), self.lease.clone());
        Box::pin(carry_out(self.executor, write, key, lease, self.lease_until, numbered, self.seq))
    }

    /// Takes note of a write, which has renewed the lease and says who is listening.
    ///
    /// A report that was not stored is no reason to stop: the next is as good, and conditional on the epoch alike.
    fn written(&mut self, written: Written, pace: &mut Pace, reports: &mut Reports) {
        let Written { write, asked_at, answer } = written;
        let error = match answer {
            Ok(Audience { subscribers, cancel_requested, parts_released: _ }) => {
                self.renewed_at = asked_at;
                self.fan_out.renew(self.executor.settings.lease_holds_until(asked_at), subscribers);
                if let Write::Checkpoint(unsaved) = write {
                    self.has_saved = true;
                    unsaved.answer(Ok(()));
                }
                if cancel_requested {
                    self.request.cancel_requested = true;
                    self.stop_handler(StopReason::Cancelled, reports);
                }
                return;
            }
            Err(error) if error.kind() == StoreErrorKind::Fenced => {
                self.stop_handler(StopReason::LeaseLost, reports);
                // Let go of only now that it is told: it hears that as the answer to its checkpoint.
                pace.unsaved = None;
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(request = %self.key, error = %Causes(&error), "progress was not stored");
        match write {
            Write::Renewal => {}
            Write::Report => pace.to_store = true,
            Write::Checkpoint(unsaved) => {
                pace.to_store = true;
                let try_at = Instant::now() + RETRY_INTERVAL;
                if error.is_transient() && try_at < unsaved.give_up_at {
                    pace.unsaved = Some(Unsaved { try_at, ..unsaved });
                } else {
                    let problem = if error.kind() == StoreErrorKind::TooLarge {
                        "was not saved: it is larger than can be stored"
                    } else {
                        "was not saved: the store did not take it"
                    };
                    unsaved.answer(Err(ProgressError::Checkpoint { problem: problem.to_owned() }));
                }
            }
        }
    }
}

impl Unsaved {
    fn new(checkpoint: Checkpoint, patience: Duration) -> Self {
        let Checkpoint { state, saved } = checkpoint;
        let now = Instant::now();
        Self { state: Arc::new(state), saved, try_at: now, give_up_at: now + patience }
    }

    /// Tells the handler, unless it has stopped waiting.
    fn answer(self, saved: Result<(), ProgressError>) {
        let _ = self.saved.send(saved);
    }
}

/// The output of a future that may not be there; then, never.
async fn running<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn carry_out<Q: RequestQueue, P, D>(
    executor: &Executor<Q, P, D>,
    write: Write,
    key: RequestKey,
    lease: Lease,
    lease_end: Timestamp,
    progress: Progress,
    seq: Seq,
) -> Written {
    let (asked_at, queue) = (Instant::now(), &executor.queue);
    let lease_end = bugs::instead(Bug::LeaseNeverRenewed, lease.expires_at, lease_end);
    let answer = match &write {
        Write::Renewal => queue.renew(&key, &lease, lease_end).await,
        Write::Report => queue.progress(&key, &lease, &progress, seq, lease_end).await,
        Write::Checkpoint(unsaved) => {
            queue.checkpoint(&key, &lease, &unsaved.state, &progress, seq, lease_end).await
        }
    };
    Written { write, asked_at, answer }
}
