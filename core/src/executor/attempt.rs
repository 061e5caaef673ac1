//! One attempt of a claimed request: runs the handler, keeps the lease, pushes progress, and writes the
//! outcome.

mod finish;
mod mistakes;
mod stop;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::outcome::Outcome;
use super::{Executor, RunResult};
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::FanOut;
use crate::handler::{Context, HandlerTask, RetryPolicy};
use crate::ids::RequestKey;
use crate::middleware::{Call, CallError, Phase, Reply};
use crate::ports::Timestamp;
use crate::progress::{ProgressReporter, StopReason};
use crate::protocol::{Frame, Seq};
use crate::store::{Lease, Progress, Request, RequestQueue};

/// One run of a handler under one claim of a request.
pub(super) struct Attempt<'a, Q, P, D> {
    executor: &'a Executor<Q, P, D>,
    key: RequestKey,
    request: Request,
    /// The request's payload; kept for the dead letter that is sent if the request fails for good.
    payload: Arc<Value>,
    policy: RetryPolicy,
    lease: Lease,
    /// Lease expiry time that the attempt's claim or latest write requested.
    lease_until: Timestamp,
    /// Instant just before the latest successful claim or renewal was sent. The lease lasts at least its full
    /// duration from this instant.
    renewed_at: Instant,
    /// Instant at which the invocation ends.
    deadline: Instant,
    /// Sequence number of the latest progress frame.
    seq: Seq,
    fan_out: FanOut<'a, P>,
    /// Progress in the latest progress frame; before the first frame, the progress that the attempt started
    /// with.
    pushed: Progress,
    /// Whether the attempt continues from a checkpoint that an earlier run of the handler saved.
    had_checkpoint: bool,
    /// Whether this run of the handler has saved a checkpoint.
    has_saved: bool,
    /// The stop request to the handler; `None` until the handler is asked to stop.
    stop: Option<Stop>,
}

/// A stop request to a handler: the reason, and the instant until which the handler may clean up.
#[derive(Clone, Copy, Debug)]
struct Stop {
    reason: StopReason,
    until: Instant,
}

/// The attempt's lease is lost. A different attempt may run the request, so this attempt must not write or
/// push anything.
struct LeaseLost;

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'a, Q, P, D> {
    /// Maximum time that an aborted handler may take to reach its next `.await`.
    const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

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
        let seq = bugs::instead(Bug::SeqRestarts, Seq::start_of(0), seq);
        // A run that continues from a checkpoint keeps the stored progress. A run without a checkpoint starts
        // at zero.
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
            stop: None,
        }
    }

    /// Runs the handler and writes its outcome; if the request is terminal, delivers the terminal frame.
    pub(super) async fn run(mut self) -> RunResult {
        if self.request.cancel_requested {
            return self.finish(Outcome::Stopped).await;
        }
        let (reporter, mut reports) = ProgressReporter::channel(self.pushed.clone());
        reports.end_by(self.handler_deadline());
        let mut task = self.start(reporter);
        let outcome = self.watch(&mut task, &mut reports).await;
        if timeout(Self::ABORT_TIMEOUT, task.stop()).await.is_err() {
            tracing::error!(request = %self.key, "aborted handler still blocks its thread");
            self.executor.handler_runtime.replace_if_blocked().await;
        }
        let Ok(outcome) = outcome else {
            tracing::warn!(
                request = %self.key, epoch = self.lease.epoch,
                "lease lost; attempt stops without writing"
            );
            return RunResult::Done;
        };
        let latest = reports.progress.borrow().clone();
        self.push_progress(latest);
        self.finish(outcome).await
    }

    /// Starts a task on the handler runtime that calls the handler through the app's middleware layers.
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

    /// Starts to push progress to the subscribers, unless `progress` was pushed already.
    ///
    /// The fan-out drops progress once the lease may have expired.
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
}
