//! One attempt at a claimed request: its handler, its lease, its frames.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::outcome::{Circumstances, Failure, HandlerEnd, Outcome, Parting};
use super::{Executor, Ran};
#[cfg(feature = "seeded-bugs")]
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::{EndedRequest, FanOut, deliver, terminal_frame};
use crate::handler::{Context, HandlerTask, RetryPolicy};
use crate::ids::RequestKey;
use crate::lifecycle::Rules;
use crate::middleware::{Call, CallError, Phase, Reply};
use crate::ports::Timestamp;
use crate::progress::{Checkpoint, ProgressError, ProgressReporter, Reports, StopReason};
use crate::protocol::{Frame, Seq};
use crate::store::{
    Audience, Ending, LastReport, Lease, Progress, Request, RequestQueue, StoreError, StoreErrorKind,
};
use crate::telemetry::Causes;

#[cfg(feature = "seeded-bugs")]
mod mistakes;

pub(super) struct Attempt<'a, Q, P, D> {
    executor: &'a Executor<Q, P, D>,
    key: RequestKey,
    request: Request,
    /// Kept for the dead letter that may come of it.
    payload: Arc<Value>,
    policy: RetryPolicy,
    lease: Lease,
    /// Until when its holder has asked for the lease last.
    lease_until: Timestamp,
    /// Before the claim, or the renewal, was asked for: by then at the latest the lease began.
    renewed_at: Instant,
    /// When the invocation ends.
    deadline: Instant,
    seq: Seq,
    fan_out: FanOut<'a, P>,
    pushed: Progress,
    /// Whether something was saved before this run that it goes on from.
    had_checkpoint: bool,
    /// Whether this run has saved something to go on from.
    has_saved: bool,
    told: Option<Told>,
}

/// What a handler was told, and how long it has.
#[derive(Clone, Copy, Debug)]
struct Told {
    reason: StopReason,
    until: Instant,
}

/// The lease is lost: another attempt has the request, and this one has nothing more to say.
struct LeaseLost;

/// How long before the invocation's end we are done, whatever is left.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// How much of an invocation is kept for writing what has become of its requests, however long a handler may take to stop.
const WRITE_TIME: Duration = Duration::from_secs(4);

/// How much of that is kept from clients that take long to take the last report.
const LEAST_WRITE_TIME: Duration = Duration::from_secs(2);

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
    /// How long a handler that was dropped may take to its next await.
    const STOP_PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(
        executor: &'a Executor<Q, P, D>,
        mut request: Request,
        lease: Lease,
        claimed_at: Instant,
        deadline: Instant,
    ) -> Self {
        let key = request.key();
        let settings = &executor.settings;
        let fan_out = FanOut::new(
            &executor.connections,
            key.clone(),
            settings.push_timeout,
            settings.lease_holds_until(claimed_at),
            request.subscribers.clone(),
        );
        let seq = Seq::start_of(lease.epoch);
        #[cfg(feature = "seeded-bugs")]
        let seq = bugs::instead(Bug::SeqBeginsAnew, Seq::start_of(0), seq);
        // What goes on goes on from there; what begins anew begins at zero.
        let pushed =
            if request.checkpoint.is_some() { request.progress.clone() } else { Progress::default() };
        Self {
            executor,
            fan_out,
            key,
            payload: Arc::new(std::mem::take(&mut request.payload)),
            policy: executor.app.retry_policy(&request.action),
            seq,
            had_checkpoint: request.checkpoint.is_some(),
            request,
            lease_until: lease.expires_at,
            lease,
            renewed_at: claimed_at,
            deadline,
            pushed,
            has_saved: false,
            told: None,
        }
    }

    /// Runs the handler, and writes and tells what has come of it.
    pub(super) async fn run(mut self) -> Ran {
        if self.request.cancel_requested {
            return self.part(Outcome::Stopped).await;
        }
        let (reporter, mut reports) = ProgressReporter::channel(self.pushed.clone());
        reports.end_by(self.time_is_up());
        let mut task = self.start(reporter);
        let outcome = self.watch(&mut task, &mut reports).await;
        if timeout(Self::STOP_PATIENCE, task.stop()).await.is_err() {
            tracing::error!(request = %self.key, "the handler does not stop: it holds a thread until it awaits");
            self.executor.handler_runtime.replace_if_stuck().await;
        }
        let Ok(outcome) = outcome else {
            tracing::warn!(request = %self.key, epoch = self.lease.epoch, "the lease is lost: nothing is written or told");
            return Ran::Done;
        };
        let latest = reports.progress.borrow().clone();
        self.push_progress(latest);
        self.part(outcome).await
    }

    /// When the handler is told that its invocation ends.
    fn time_is_up(&self) -> Instant {
        before(self.deadline, self.executor.settings.deadline_margin)
    }

    /// Sends the request through the app's layers to its handler.
    fn start(&mut self, progress: ProgressReporter) -> HandlerTask<Result<Reply, CallError>> {
        let checkpoint = self.request.checkpoint.take().map(Arc::new);
        let request = &self.request;
        let context = Context {
            request_id: request.id.clone(),
            action: request.action.clone(),
            user: request.user.clone(),
            tenant: request.tenant.clone(),
            connection: request.connection.clone(),
            metadata: request.metadata.clone(),
            attempt: request.attempt,
            continuations: request.continuations,
            progress,
            checkpoint,
        };
        let call = Call::new(context, Arc::clone(&self.payload), Phase::Processing);
        let app = self.executor.app.clone();
        HandlerTask::spawn(&self.executor.handler_runtime.handle(), async move { app.call(call).await })
    }

    /// Pushes and stores progress, saves checkpoints and renews the lease, until the handler ends; tells it when it is to
    /// stop, and goes on meanwhile for as long as it has then.
    async fn watch(
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
            let stop_at = self.told.map_or_else(|| self.time_is_up(), |told| told.until);
            let is_ours = self.told.is_none_or(|told| told.reason != StopReason::LeaseLost);
            let write_at = self.next_write_at(&pace);
            tokio::select! {
                biased;
                ended = task.ended() => return self.outcome(Some(ended)),
                () = sleep_until(stop_at) => match self.told {
                    None => self.tell(StopReason::TimeIsUp, reports),
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
                    self.tell(StopReason::Cancelled, reports);
                }
                return;
            }
            Err(error) if error.kind() == StoreErrorKind::Fenced => {
                self.tell(StopReason::LeaseLost, reports);
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

    /// Tells the handler to stop. The first reason counts, unless the lease is lost: then nothing does any more.
    fn tell(&mut self, reason: StopReason, reports: &mut Reports) {
        let now = Instant::now();
        match &mut self.told {
            Some(told) if reason == StopReason::LeaseLost => told.reason = reason,
            Some(_) => return,
            told @ None => {
                tracing::info!(request = %self.key, ?reason, "the handler is told to stop");
                let until = now + self.executor.settings.stop_grace;
                // However long it has, there is time to write what has come of it.
                *told = Some(Told { reason, until: until.min(before(self.deadline, WRITE_TIME)) });
            }
        }
        reports.stop(reason);
        if reason == StopReason::LeaseLost {
            reports.refuse_checkpoints();
        }
    }

    /// What has come of a handler that has ended, or was dropped since it did not.
    fn outcome(&self, ended: Option<HandlerEnd>) -> Result<Outcome, LeaseLost> {
        let has_checkpoint = self.has_saved || self.had_checkpoint;
        let outcome = ended.map(|ended| Outcome::of(ended, has_checkpoint, &self.policy, &self.key));
        match (self.told.map(|told| told.reason), outcome) {
            (Some(StopReason::LeaseLost), _) => Err(LeaseLost),
            (Some(StopReason::Cancelled), _) => Ok(Outcome::Stopped),
            (None, Some(outcome)) => Ok(outcome),
            // What it has done in the time that it had left counts; how it put that it had to stop does not.
            (Some(StopReason::TimeIsUp), Some(outcome @ (Outcome::Succeeded(_) | Outcome::Yielded))) => {
                Ok(outcome)
            }
            // So does that another attempt would find it no better.
            (Some(StopReason::TimeIsUp), Some(outcome)) if outcome.is_timeout() || outcome.is_final() => {
                Ok(outcome)
            }
            (Some(StopReason::TimeIsUp), _) if self.has_saved => Ok(Outcome::Yielded),
            (Some(StopReason::TimeIsUp) | None, _) => {
                Ok(Outcome::out_of_time(&self.policy, self.request.runner))
            }
        }
    }

    /// Sends progress to who is listening, as long as the lease surely holds.
    fn push_progress(&mut self, progress: Progress) {
        if progress == self.pushed {
            return;
        }
        self.seq = self.seq.next();
        let frame = Frame::Progress {
            request_id: self.request.id.clone(),
            percentage: progress.percentage,
            message: progress.message.clone(),
            timestamp: self.executor.clock.now().as_secs(),
            metadata: progress.metadata.clone(),
            seq: self.seq,
        };
        self.pushed = progress;
        self.fan_out.offer(self.seq, frame.to_json());
    }

    /// Writes what becomes of the request, then, if it has ended, tells it, and notes who has been told.
    async fn part(mut self, outcome: Outcome) -> Ran {
        let now = self.executor.clock.now();
        let end_of_time = before(self.deadline, LAST_MOMENT);
        let mut parting = self.parting(outcome, now);
        if !parting.is_end() {
            // Whoever claims it next pushes at once: what we have to say is said before that.
            let flush_until = Instant::now() + self.executor.settings.push_timeout;
            self.fan_out.flush(flush_until.min(before(end_of_time, LEAST_WRITE_TIME))).await;
        }
        let mut is_replaced = false;
        let (last, audience) = loop {
            let seq = if parting.is_end() { self.seq.next() } else { self.seq };
            let last = LastReport { progress: self.pushed.clone(), seq, at: now };
            let error = match timeout_at(end_of_time, self.write(&parting, &last)).await {
                Ok(Ok(audience)) => break (last, audience),
                Ok(Err(error)) => error,
                Err(_) => {
                    tracing::error!(request = %self.key, "what becomes of it is not known to be stored before the invocation's end");
                    return Ran::Done;
                }
            };
            let kind = error.kind();
            if kind == StoreErrorKind::ConditionLost && !parting.is_cancelled() {
                // Its end is asked for, and the attempt had not heard of it.
                parting = Parting::cancelled();
            } else if kind == StoreErrorKind::TooLarge && parting.is_end() && !is_replaced {
                is_replaced = true;
                parting = Parting::too_large(&self.request, &self.lease, now);
            } else if kind == StoreErrorKind::Fenced {
                tracing::warn!(request = %self.key, epoch = self.lease.epoch, "the lease is lost: nothing is written or told");
                return Ran::Done;
            } else {
                tracing::error!(request = %self.key, error = %Causes(&error), "what becomes of it was not stored");
                return Ran::Done;
            }
        };
        match parting {
            Parting::Ended(ending, history) => {
                self.request.history = history;
                self.deliver(ending, &last, audience, end_of_time).await;
                Ran::Done
            }
            Parting::Retried { due, .. } => {
                tracing::info!(request = %self.key, %due, "waits for its next attempt");
                Ran::RetryAt(Instant::now() + due.since(self.executor.clock.now()))
            }
            Parting::Continued => {
                tracing::info!(request = %self.key, "goes on in a fresh invocation");
                Ran::Done
            }
        }
    }

    /// What becomes of the request; an end is one that a frame can tell.
    fn parting(&self, outcome: Outcome, now: Timestamp) -> Parting {
        let executor = self.executor;
        let tellable = |ending| terminal_frame(&self.request.id, ending, self.seq.next(), now).0;
        let outcome = match outcome {
            Outcome::Succeeded(result) => match tellable(Ending::Completed(result)) {
                Ending::Completed(result) => Outcome::Succeeded(result),
                Ending::Failed(error) => Outcome::Failed(Failure::for_good(error)),
                Ending::Cancelled => Outcome::Stopped,
            },
            Outcome::Yielded | Outcome::Stopped | Outcome::Failed(_) => outcome,
        };
        let rules = Rules { max_continuations: executor.settings.max_continuations, ..Rules::default() };
        let circumstances = Circumstances {
            request: &self.request,
            lease: &self.lease,
            policy: &self.policy,
            rules: &rules,
            chance: executor.chance(),
            now,
        };
        match Parting::after(outcome, circumstances) {
            Parting::Ended(ending, history) => Parting::Ended(tellable(ending), history),
            waiting @ (Parting::Retried { .. } | Parting::Continued) => waiting,
        }
    }

    /// Writes how the request leaves the attempt; of one that has ended, the last report is on its way meanwhile.
    async fn write(&mut self, parting: &Parting, last: &LastReport) -> Result<Audience, StoreError> {
        #[cfg(feature = "seeded-bugs")]
        if let Parting::Ended(ending, history) = parting {
            Box::pin(self.before_it_is_written(ending, history, last)).await;
        }
        let written = write(self.executor, &self.key, &self.lease, parting, last);
        tokio::pin!(written);
        loop {
            tokio::select! {
                biased;
                // Begun first: whether the attempt may still say anything is for the write to find.
                written = &mut written => return written,
                () = self.fan_out.advance(), if parting.is_end() => {}
            }
        }
    }

    /// Tells the end, and notes who has been told.
    async fn deliver(mut self, ending: Ending, last: &LastReport, audience: Audience, until: Instant) {
        let executor = self.executor;
        #[cfg(feature = "seeded-bugs")]
        let late_reports = self.late_reports(&audience);
        tracing::info!(request = %self.key, status = ending.status().as_str(), "ended");
        self.request.status = ending.status();
        self.request.is_dead_letter_due = matches!(ending, Ending::Failed(_));
        if self.request.is_dead_letter_due {
            self.request.payload = Arc::unwrap_or_clone(self.payload);
        }
        self.request.ending = Some(ending);
        self.request.seq = last.seq;
        self.request.finished_at = Some(last.at);
        let end = EndedRequest {
            request: &self.request,
            audience: audience.subscribers.into_iter().map(|listens| listens.connection).collect(),
            parts_released: audience.parts_released,
            is_payload_lost: false,
        };
        let (push_timeout, dead_letters) = (executor.settings.push_timeout, Some(&executor.dead_letters));
        deliver(&executor.queue, dead_letters, self.fan_out, end, until, push_timeout).await;
        #[cfg(feature = "seeded-bugs")]
        for (to, frame) in late_reports {
            let _ = executor.connections.send(&to, &frame).await;
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

fn before(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
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
    #[cfg(feature = "seeded-bugs")]
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

/// Writes how a request leaves its attempt, again and again until it stands: it is what the client was promised, and
/// conditional on the epoch, so that it can do no harm however late it comes.
pub(super) async fn write<Q: RequestQueue, P, D>(
    executor: &Executor<Q, P, D>,
    key: &RequestKey,
    lease: &Lease,
    parting: &Parting,
    last: &LastReport,
) -> Result<Audience, StoreError> {
    let queue = &executor.queue;
    loop {
        let written = match parting {
            Parting::Ended(Ending::Completed(result), _) => queue.complete(key, lease, result, last).await,
            Parting::Ended(Ending::Failed(error), history) => {
                queue.fail(key, lease, error, history, last).await
            }
            Parting::Ended(Ending::Cancelled, _) => queue.confirm_cancel(key, lease, last).await,
            Parting::Retried { due, runner, history } => {
                queue.retry_later(key, lease, history, *due, *runner, last).await
            }
            Parting::Continued => queue.continue_later(key, lease, last).await,
        };
        match written {
            Err(error) if error.is_transient() => {
                tracing::warn!(request = %key, error = %Causes(&error), "what becomes of it is not stored yet");
                sleep(RETRY_INTERVAL).await;
            }
            done => return done,
        }
    }
}
