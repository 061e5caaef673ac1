//! One attempt at a claimed request: its handler, its lease, its frames.

mod finish;
mod mistakes;
mod stop;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::outcome::Outcome;
use super::{Executor, Ran};
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
    stop: Option<Stop>,
}

/// Why a handler is to stop, and how long it has.
#[derive(Clone, Copy, Debug)]
struct Stop {
    reason: StopReason,
    until: Instant,
}

/// The lease is lost: another attempt has the request, and this one has nothing more to say.
struct LeaseLost;

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
            stop: None,
        }
    }

    /// Runs the handler, and writes and tells what has come of it.
    pub(super) async fn run(mut self) -> Ran {
        if self.request.cancel_requested {
            return self.finish(Outcome::Stopped).await;
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
        self.finish(outcome).await
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
}
