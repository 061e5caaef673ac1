//! One attempt at a claimed request: its handler, its lease, its frames.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Attempts;
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::{End, Listeners, settle, terminal_frame};
use crate::handler::{Context, HandlerTask};
use crate::ids::RequestKey;
use crate::middleware::{Call, CallError, Phase, Reply};
use crate::progress::ProgressReporter;
use crate::protocol::{ErrorBody, ErrorCode, Frame, Seq};
use crate::store::{
    Audience, Ending, LastReport, Lease, PastAttempt, Progress, Request, RequestQueue, StoreError,
    StoreErrorKind,
};
use crate::telemetry::Causes;

pub(super) struct Attempt<'a, Q, P, D> {
    attempts: &'a Attempts<Q, P, D>,
    key: RequestKey,
    request: Request,
    lease: Lease,
    /// Before the claim, or the renewal, was asked for: by then at the latest the lease began.
    renewed_at: Instant,
    /// When the invocation ends.
    deadline: Instant,
    seq: Seq,
    listeners: Listeners<'a, P>,
    pushed: Progress,
}

/// The lease is lost: another attempt has the request, and this one has nothing more to say.
struct LeaseLost;

/// How long before the invocation's end we are done, whatever is left.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// How long to wait between two tries to write the end.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What has come of a report.
enum Report {
    Stored,
    NotStored,
    /// Stored, and answered with the wish that the request end.
    CancelRequested,
}

/// How a stored report went, and when it was asked for.
type Stored = (Instant, Result<Audience, StoreError>);

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'a, Q, P, D> {
    /// How long a handler that was told to stop may take to its next await.
    const STOP_PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(
        attempts: &'a Attempts<Q, P, D>,
        request: Request,
        lease: Lease,
        claimed_at: Instant,
        deadline: Instant,
    ) -> Self {
        let key = request.key();
        let settings = &attempts.settings;
        let listeners = Listeners::new(
            &attempts.connections,
            key.clone(),
            settings.push_timeout,
            settings.lease_holds_until(claimed_at),
            request.subscribers.clone(),
        );
        Self {
            attempts,
            listeners,
            key,
            seq: Seq::start_of(lease.epoch),
            request,
            lease,
            renewed_at: claimed_at,
            deadline,
            pushed: Progress::default(),
        }
    }

    /// Runs the handler, and ends the request with what came of it.
    pub(super) async fn run(mut self) {
        let (reporter, mut reports) = ProgressReporter::channel(Progress::default());
        let mut task = self.start(reporter);
        let outcome = self.watch(&mut task, &mut reports.progress).await;
        if timeout(Self::STOP_PATIENCE, task.stop()).await.is_err() {
            tracing::error!(request = %self.key, "the handler does not stop: it holds a thread until it awaits");
        }
        let Ok(ending) = outcome else {
            tracing::warn!(request = %self.key, epoch = self.lease.epoch, "the lease is lost: stopping");
            return;
        };
        let latest = reports.progress.borrow().clone();
        self.push_progress(latest);
        self.finish(ending).await;
    }

    /// Sends the request through the app's layers to its handler; its payload goes along: nobody else needs it.
    fn start(&mut self, progress: ProgressReporter) -> HandlerTask<Result<Reply, CallError>> {
        let payload = std::mem::take(&mut self.request.payload);
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
            checkpoint: None,
        };
        let call = Call::new(context, payload, Phase::Processing);
        let app = self.attempts.app.clone();
        HandlerTask::spawn(&self.attempts.handlers, async move { app.call(call).await })
    }

    /// Pushes and stores progress, and renews the lease, until the handler ends or its time is up.
    async fn watch(
        &mut self,
        task: &mut HandlerTask<Result<Reply, CallError>>,
        progress: &mut watch::Receiver<Progress>,
    ) -> Result<Ending, LeaseLost> {
        let attempts = self.attempts;
        let settings = &attempts.settings;
        let time_is_up = self.deadline.checked_sub(settings.deadline_margin).unwrap_or(self.deadline);
        let (mut push_at, mut asked_at) = (Instant::now(), self.renewed_at);
        let mut reporting = true;
        let (mut to_push, mut to_store) = (false, false);
        // Kept beside the loop, so that a store that is slow holds up nothing else.
        let mut storing: Option<BoxFuture<'_, Stored>> = None;
        loop {
            let third = settings.lease / 3;
            let renew_at = (self.renewed_at + third).max(asked_at + settings.store_interval.min(third));
            let store_at = if to_store { renew_at.min(asked_at + settings.store_interval) } else { renew_at };
            tokio::select! {
                biased;
                ended = task.ended() => return Ok(self.ending(ended)),
                () = sleep_until(time_is_up) => return Ok(Ending::Failed(ErrorBody::new(
                    ErrorCode::Timeout,
                    "The request took longer than one invocation may",
                ))),
                // Not asked for while both are due: a handler that reports without end would win every turn.
                changed = progress.changed(), if reporting && !(to_push && to_store) => {
                    // The handler has dropped its reporter: it may go on without saying anything more.
                    reporting = changed.is_ok();
                    to_push |= reporting;
                    to_store |= reporting;
                }
                stored = running(&mut storing) => {
                    storing = None;
                    match self.stored(stored)? {
                        Report::Stored => {}
                        Report::NotStored => to_store = true,
                        Report::CancelRequested => return Ok(Ending::Cancelled),
                    }
                }
                () = sleep_until(store_at), if storing.is_none() => {
                    asked_at = Instant::now();
                    to_store = false;
                    let latest = progress.borrow().clone();
                    storing = Some(Box::pin(store(attempts, self.key.clone(), self.lease.clone(), latest, self.seq)));
                }
                () = sleep_until(push_at), if to_push => {
                    to_push = false;
                    push_at = Instant::now() + settings.push_interval;
                    let latest = progress.borrow().clone();
                    self.push_progress(latest);
                }
                () = self.listeners.advance() => {}
            }
        }
    }

    fn ending(&self, ended: Result<Result<Reply, CallError>, JoinError>) -> Ending {
        match ended {
            Ok(Ok(Reply::Done(output))) => Ending::Completed(output),
            Ok(Ok(decision @ (Reply::Queue { .. } | Reply::BuiltIn))) => {
                tracing::error!(request = %self.key, ?decision, "a layer has decided what is for the router alone");
                Ending::Failed(ErrorBody::processing_failed())
            }
            Ok(Err(error)) => {
                if error.is_unexpected() {
                    tracing::warn!(request = %self.key, error = %Causes(&error), "the request failed");
                } else {
                    tracing::debug!(request = %self.key, %error, "the request failed");
                }
                Ending::Failed(error.into_told())
            }
            Err(error) => {
                tracing::error!(request = %self.key, %error, "the handler or a layer panicked");
                Ending::Failed(ErrorBody::processing_failed())
            }
        }
    }

    /// Takes note of a stored report, which has renewed the lease and says who is listening.
    ///
    /// One that was not stored is no reason to stop: the next is as good, and conditional on the epoch alike.
    fn stored(&mut self, (asked_at, stored): Stored) -> Result<Report, LeaseLost> {
        match stored {
            Ok(Audience { subscribers, cancel_requested, parts_released: _ }) => {
                self.renewed_at = asked_at;
                self.listeners.renew(self.attempts.settings.lease_holds_until(asked_at), subscribers);
                if cancel_requested {
                    tracing::info!(request = %self.key, "its end is asked for: stopping");
                    return Ok(Report::CancelRequested);
                }
                Ok(Report::Stored)
            }
            Err(error) if error.kind() == StoreErrorKind::Fenced => Err(LeaseLost),
            Err(error) => {
                tracing::warn!(request = %self.key, error = %Causes(&error), "progress was not stored");
                Ok(Report::NotStored)
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
            timestamp: self.attempts.clock.now().as_secs(),
            metadata: progress.metadata.clone(),
            seq: self.seq,
        };
        self.pushed = progress;
        self.listeners.offer(self.seq, frame.to_json());
    }

    /// Writes the end, then tells it, then notes who has been told.
    async fn finish(mut self, ending: Ending) {
        let seq = self.seq.next();
        let now = self.attempts.clock.now();
        let last = LastReport { progress: self.pushed.clone(), seq, at: now };
        let (mut ending, _) = terminal_frame(&self.request.id, ending, seq, now);
        let end_of_time = self.deadline.checked_sub(LAST_MOMENT).unwrap_or(self.deadline);
        let (attempts, key, lease) = (self.attempts, &self.key, &self.lease);
        let written = async {
            let mut written = write_end(attempts, key, lease, &ending, &[], &last).await;
            if matches!(&written, Err(error) if error.kind() == StoreErrorKind::TooLarge) {
                let error =
                    ErrorBody::new(ErrorCode::PayloadTooLarge, "The result is larger than can be stored");
                ending = Ending::Failed(error);
                written = write_end(attempts, key, lease, &ending, &[], &last).await;
            }
            written
        };
        // The last report is on its way while the end is written, and comes before it.
        let listeners = &mut self.listeners;
        let written = async {
            tokio::pin!(written);
            loop {
                tokio::select! {
                    written = &mut written => return written,
                    () = listeners.advance() => {}
                }
            }
        };
        let audience = match timeout_at(end_of_time, written).await {
            Ok(Ok(audience)) => audience,
            Ok(Err(error)) => {
                tracing::error!(request = %self.key, error = %Causes(&error), "the end was not stored");
                return;
            }
            Err(_) => {
                tracing::error!(request = %self.key, "the end is not known to be stored before the invocation's own");
                return;
            }
        };
        tracing::info!(request = %self.key, status = ending.status().as_str(), "ended");
        self.request.is_dead_letter_due = matches!(ending, Ending::Failed(_));
        self.request.ending = Some(ending);
        self.request.seq = seq;
        self.request.finished_at = Some(now);
        let end = End {
            request: &self.request,
            audience: audience.subscribers.into_iter().map(|listens| listens.connection).collect(),
            parts_released: audience.parts_released,
        };
        let push_timeout = attempts.settings.push_timeout;
        let dead_letters = Some(&attempts.dead_letters);
        settle(&attempts.queue, dead_letters, self.listeners, end, end_of_time, push_timeout).await;
    }
}

/// The output of a future that may not be there; then, never.
async fn running<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn store<Q: RequestQueue, P, D>(
    attempts: &Attempts<Q, P, D>,
    key: RequestKey,
    lease: Lease,
    progress: Progress,
    seq: Seq,
) -> Stored {
    let asked_at = Instant::now();
    let lease_end = attempts.clock.now() + attempts.settings.lease;
    (asked_at, attempts.queue.progress(&key, &lease, &progress, seq, lease_end).await)
}

/// Writes the end, again and again until it stands: it is what the client was promised, and conditional
/// on the epoch, so that it can do no harm however late it comes.
pub(super) async fn write_end<Q: RequestQueue, P, D>(
    attempts: &Attempts<Q, P, D>,
    key: &RequestKey,
    lease: &Lease,
    ending: &Ending,
    history: &[PastAttempt],
    last: &LastReport,
) -> Result<Audience, StoreError> {
    loop {
        let written = match ending {
            Ending::Completed(result) => attempts.queue.complete(key, lease, result, last).await,
            Ending::Failed(error) => attempts.queue.fail(key, lease, error, history, last).await,
            Ending::Cancelled => attempts.queue.cancelled(key, lease, last).await,
        };
        match written {
            Err(error) if error.is_transient() => {
                tracing::warn!(request = %key, error = %Causes(&error), "the end is not stored yet");
                sleep(RETRY_INTERVAL).await;
            }
            done => return done,
        }
    }
}
