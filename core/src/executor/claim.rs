//! Claims a request and starts its attempt.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::ending::{AttemptEnding, write_ending};
use super::{Executor, NotClaimed, RunResult};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::{REPLY_MARGIN, before};
use crate::ids::RequestKey;
use crate::protocol::Seq;
use crate::store::{Claimed, LastReport, Lease, RequestQueue, Runner, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Executor<Q, P, D> {
    /// Claims a request and runs one attempt of it, until the attempt's outcome is written.
    ///
    /// Does not claim the request if `min_time` or less remains until the handler would be asked to stop, which
    /// happens shortly before the invocation ends at `deadline`.
    pub(crate) async fn run(
        &self,
        key: &RequestKey,
        runner: Runner,
        min_time: Duration,
        deadline: Instant,
    ) -> Result<RunResult, NotClaimed> {
        // Measured before the claim is sent, because the lease cannot begin before this instant.
        let claimed_at = Instant::now();
        if claimed_at + self.settings.deadline_margin + min_time >= deadline {
            return Err(NotClaimed::NoTimeLeft);
        }
        let (now, owner) = (self.clock.now(), self.owner_token());
        let claim = self.queue.claim(key, &owner, runner, now, now + self.settings.lease);
        // A claim that is answered after this timeout would leave no time for the handler.
        let claimed = timeout_at(deadline - self.settings.deadline_margin, claim).await;
        let timed_out = |_| {
            let context =
                format!("the claim of request {key} was not answered before the invocation's deadline");
            Err(StoreError::new(StoreErrorKind::Unavailable, context))
        };
        match claimed.unwrap_or_else(timed_out).map_err(NotClaimed::Store)? {
            Claimed::Won(request, lease) => {
                tracing::info!(
                    request = %key, action = request.action, attempt = request.attempt,
                    "request claimed"
                );
                return Ok(Box::pin(Attempt::new(self, *request, lease, claimed_at, deadline).run()).await);
            }
            // The claim cannot be released, because the store does not answer. The claim counts as one of the
            // request's attempts.
            Claimed::Unreachable(_, error) => {
                tracing::error!(
                    request = %key, error = %Causes(&error),
                    "claimed request temporarily unreadable; waits for lease expiry"
                );
            }
            Claimed::Unreadable(lease, error) => self.fail_unreadable(key, &lease, &error, deadline).await,
            Claimed::ForWorker => return Ok(RunResult::ForWorker),
            Claimed::NotPending(status) => {
                tracing::debug!(
                    request = %key, status = status.as_str(),
                    "request not pending; nothing to run"
                );
            }
            Claimed::Missing => tracing::warn!(request = %key, "request not found; nothing to run"),
        }
        Ok(RunResult::Done)
    }

    /// Writes FAILED to a claimed request whose stored values cannot be read, or CANCELLED if a cancel was
    /// requested.
    ///
    /// The request is not retried, because a retry could not read these values either.
    async fn fail_unreadable(&self, key: &RequestKey, lease: &Lease, error: &StoreError, deadline: Instant) {
        tracing::error!(request = %key, error = %Causes(error), "claimed request unreadable; request fails");
        let seq = Seq::start_of(lease.epoch).next();
        let last = LastReport { seq, at: self.clock.now(), ..LastReport::default() };
        let ending = |cancel_requested| {
            AttemptEnding::of_unreadable(lease, cancel_requested, last.at, &self.settings.rules)
        };
        let written = async {
            match write_ending(self, key, lease, &ending(false), &last).await {
                Err(error) if error.kind() == StoreErrorKind::ConditionLost => {
                    write_ending(self, key, lease, &ending(true), &last).await
                }
                written => written,
            }
        };
        match timeout_at(before(deadline, REPLY_MARGIN), written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(request = %key, error = %Causes(&error), "terminal write failed");
            }
            Err(_) => {
                tracing::error!(request = %key, "terminal write unconfirmed at invocation deadline");
            }
        }
    }
}
