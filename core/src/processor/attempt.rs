//! One attempt at a claimed request: its handler, its lease, its frames.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Processor;
use crate::connections::{Connections, SendError, SendErrorKind};
use crate::handler::{Context, HandlerError};
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::progress::ProgressReporter;
use crate::protocol::{ErrorBody, ErrorCode, Frame, MAX_FRAME_BYTES, Seq};
use crate::store::{Audience, Ending, Lease, Progress, Request, RequestQueue, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

pub(super) struct Attempt<'a, Q, P> {
    processor: &'a Processor<Q, P>,
    key: RequestKey,
    request: Request,
    lease: Lease,
    /// When the lease was last granted, by the clock that measures and cannot be set.
    renewed_at: Instant,
    seq: Seq,
    /// Who is told, as the last stored write found them.
    subscribers: Vec<ConnectionId>,
    gone: HashSet<ConnectionId>,
    pushed: Progress,
}

/// The handler's task; dropped, it is aborted, so that an attempt that is given up leaves nothing running.
struct HandlerTask(JoinHandle<Result<Value, HandlerError>>);

impl Drop for HandlerTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The lease is lost: another attempt has the request, and this one has nothing more to say.
struct LeaseLost;

impl<'a, Q: RequestQueue, P: Connections> Attempt<'a, Q, P> {
    pub(super) fn new(
        processor: &'a Processor<Q, P>,
        key: RequestKey,
        request: Request,
        lease: Lease,
    ) -> Self {
        Self {
            processor,
            key,
            seq: Seq::start_of(lease.epoch),
            subscribers: request.subscribers.clone(),
            request,
            lease,
            renewed_at: Instant::now(),
            gone: HashSet::new(),
            pushed: Progress::default(),
        }
    }

    /// Runs the handler, and ends the request with what came of it.
    pub(super) async fn run(mut self, deadline: Timestamp) {
        let (reporter, mut progress) = ProgressReporter::channel();
        let mut task = self.start(reporter);
        let margin = self.processor.settings.deadline_margin;
        let time_left = deadline.since(self.processor.clock.now()).saturating_sub(margin);
        let outcome = self.watch(&mut task, &mut progress, Instant::now() + time_left).await;
        let Ok(outcome) = outcome else {
            tracing::warn!(request = %self.key, epoch = self.lease.epoch, "the lease is lost: stopping");
            return;
        };
        let latest = progress.borrow_and_update().clone();
        self.push_progress(latest).await;
        self.finish(outcome).await;
    }

    fn start(&self, progress: ProgressReporter) -> HandlerTask {
        let request = &self.request;
        let context = Context {
            request_id: request.id.clone(),
            action: request.action.clone(),
            user: request.user.clone(),
            tenant: request.tenant.clone(),
            connection: request.connection.clone(),
            metadata: request.metadata.clone(),
            attempt: request.attempt,
            progress,
        };
        let app = self.processor.app.clone();
        let payload = request.payload.clone();
        HandlerTask(self.processor.handlers.spawn(async move {
            let accepted = app.accept(&context.action, &payload).map_err(HandlerError::from_told)?;
            (accepted.run)(context).await
        }))
    }

    /// Pushes and stores progress, and renews the lease, until the handler ends or its time is up.
    async fn watch(
        &mut self,
        task: &mut HandlerTask,
        progress: &mut watch::Receiver<Progress>,
        time_is_up: Instant,
    ) -> Result<Ending, LeaseLost> {
        let settings = &self.processor.settings;
        let mut push_at = Instant::now();
        let mut reporting = true;
        let (mut to_push, mut to_store) = (false, false);
        loop {
            let store_at =
                self.renewed_at + if to_store { settings.store_interval } else { settings.lease / 3 };
            tokio::select! {
                biased;
                ended = &mut task.0 => return Ok(self.ending(ended)),
                () = sleep_until(time_is_up) => return Ok(Ending::Failed(ErrorBody::new(
                    ErrorCode::Timeout,
                    "The request took longer than one invocation may",
                ))),
                changed = progress.changed(), if reporting => {
                    // The handler has dropped its reporter: it may go on without saying anything more.
                    reporting = changed.is_ok();
                    to_push |= reporting;
                    to_store |= reporting;
                }
                () = sleep_until(store_at) => {
                    let latest = progress.borrow().clone();
                    self.store_progress(&latest).await?;
                    to_store = false;
                }
                () = sleep_until(push_at), if to_push => {
                    let latest = progress.borrow_and_update().clone();
                    self.push_progress(latest).await;
                    push_at = Instant::now() + settings.push_interval;
                    to_push = false;
                }
            }
        }
    }

    fn ending(&self, ended: Result<Result<Value, HandlerError>, tokio::task::JoinError>) -> Ending {
        match ended {
            Ok(Ok(output)) => Ending::Completed(output),
            Ok(Err(error)) => {
                tracing::warn!(request = %self.key, %error, "the handler failed");
                Ending::Failed(error.into_told())
            }
            Err(error) => {
                tracing::error!(request = %self.key, %error, "the handler panicked");
                Ending::Failed(ErrorBody::new(
                    ErrorCode::ProcessingFailed,
                    "The request could not be processed",
                ))
            }
        }
    }

    /// Stores progress, which renews the lease and tells who is listening.
    ///
    /// A store that does not answer is no reason to stop while the lease holds: the next write is as good.
    async fn store_progress(&mut self, progress: &Progress) -> Result<(), LeaseLost> {
        let Processor { queue, clock, settings, .. } = self.processor;
        let asked_at = Instant::now();
        let lease_end = clock.now() + settings.lease;
        match queue.progress(&self.key, &self.lease, progress, self.seq, lease_end).await {
            Ok(Audience { subscribers }) => {
                self.subscribers = subscribers;
                self.renewed_at = asked_at;
                self.lease.expires_at = lease_end;
                Ok(())
            }
            Err(error) if error.kind() == StoreErrorKind::Fenced || self.lease_is_over() => {
                tracing::warn!(request = %self.key, error = %Causes(&error), "progress was not stored");
                Err(LeaseLost)
            }
            Err(error) => {
                tracing::warn!(request = %self.key, error = %Causes(&error), "progress was not stored");
                sleep(Duration::from_millis(200)).await;
                Ok(())
            }
        }
    }

    fn lease_is_over(&self) -> bool {
        self.renewed_at.elapsed() >= self.processor.settings.lease
    }

    async fn push_progress(&mut self, progress: Progress) {
        if progress == self.pushed {
            return;
        }
        self.seq = self.seq.next();
        let frame = Frame::Progress {
            request_id: self.request.id.clone(),
            percentage: progress.percentage,
            message: progress.message.clone(),
            timestamp: self.processor.clock.now().as_secs(),
            metadata: progress.metadata.clone(),
            seq: self.seq,
        };
        self.pushed = progress;
        self.push(&frame.to_json()).await;
    }

    /// Writes the end, then tells it, then notes who has been told.
    async fn finish(mut self, ending: Ending) {
        self.seq = self.seq.next();
        let now = self.processor.clock.now();
        let (ending, frame) = self.last_frame(ending, now);
        let audience = match self.write_end(&ending, now).await {
            Ok(audience) => audience,
            Err(error) => {
                tracing::error!(request = %self.key, error = %Causes(&error), "the end was not stored");
                return;
            }
        };
        tracing::info!(request = %self.key, status = ending.status().as_str(), "ended");
        self.subscribers = audience.subscribers;
        let told = self.push(&frame).await;
        let all_told = told.len() == self.subscribers.len();
        if let Err(error) = self.processor.queue.delivered(&self.key, &told, all_told).await {
            tracing::error!(request = %self.key, error = %Causes(&error), "delivery was not noted");
        }
    }

    /// The frame that tells an ending; a result that no frame can carry ends the request as failed.
    fn last_frame(&self, ending: Ending, now: Timestamp) -> (Ending, String) {
        let request_id = self.request.id.clone();
        let (timestamp, seq) = (now.as_secs(), self.seq);
        match ending {
            Ending::Completed(result) => {
                let frame =
                    Frame::Complete { request_id, success: true, result: result.clone(), timestamp, seq }
                        .to_json();
                if frame.len() <= MAX_FRAME_BYTES {
                    return (Ending::Completed(result), frame);
                }
                let message = format!(
                    "The result makes a frame of {} bytes; the gateway carries at most {MAX_FRAME_BYTES}",
                    frame.len()
                );
                self.last_frame(Ending::Failed(ErrorBody::new(ErrorCode::PayloadTooLarge, message)), now)
            }
            Ending::Failed(error) => {
                let frame = Frame::Error {
                    request_id: Some(request_id),
                    error: error.clone(),
                    timestamp,
                    seq: Some(seq),
                }
                .to_json();
                if frame.len() <= MAX_FRAME_BYTES {
                    return (Ending::Failed(error), frame);
                }
                let cut =
                    ErrorBody::new(error.code, "The error's message and details are too large to be sent");
                self.last_frame(Ending::Failed(cut), now)
            }
        }
    }

    /// Writes the end, again and again while the lease holds: it is what the client was promised.
    async fn write_end(&self, ending: &Ending, now: Timestamp) -> Result<Audience, StoreError> {
        let Processor { queue, .. } = self.processor;
        loop {
            let written = match ending {
                Ending::Completed(result) => {
                    queue.complete(&self.key, &self.lease, result, self.seq, now).await
                }
                Ending::Failed(error) => queue.fail(&self.key, &self.lease, error, self.seq, now).await,
            };
            match written {
                Err(error) if error.is_transient() && !self.lease_is_over() => {
                    tracing::warn!(request = %self.key, error = %Causes(&error), "the end is not stored yet");
                    sleep(Duration::from_millis(500)).await;
                }
                done => return done,
            }
        }
    }

    /// Sends a frame to everyone who listens, and returns those who have it or never will.
    async fn push(&mut self, frame: &str) -> Vec<ConnectionId> {
        let Processor { connections, settings, .. } = self.processor;
        let listening = self.subscribers.iter().filter(|id| !self.gone.contains(*id));
        let sends = listening.map(|id| async move {
            let sent = timeout(settings.push_timeout, connections.send(id, frame)).await;
            (id, sent.unwrap_or_else(|_| Err(SendError::new(SendErrorKind::Unavailable))))
        });
        let mut told: Vec<ConnectionId> =
            self.subscribers.iter().filter(|id| self.gone.contains(*id)).cloned().collect();
        let mut gone = Vec::new();
        for (id, sent) in join_all(sends).await {
            match sent.map_err(|error| (error.kind(), error)) {
                Ok(()) => told.push(id.clone()),
                Err((SendErrorKind::Gone, _)) => {
                    tracing::info!(request = %self.key, connection = %id, "the subscriber is gone");
                    gone.push(id.clone());
                }
                Err((_, error)) => {
                    tracing::warn!(request = %self.key, connection = %id, error = %Causes(&error), "not pushed");
                }
            }
        }
        told.extend(gone.iter().cloned());
        self.gone.extend(gone);
        told
    }
}
