//! The claim of a request, which begins its attempt.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::ending::{AttemptEnding, write_ending};
use super::{Executor, NotClaimed, Ran};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::{LAST_MOMENT, before};
use crate::ids::RequestKey;
use crate::protocol::Seq;
use crate::store::{Claimed, LastReport, Lease, RequestQueue, Runner, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Executor<Q, P, D> {
    /// Claims a request and runs it until it ends, or is to go on later. It must have this much time `at_least` before its
    /// handler would be told that the invocation ends.
    pub(crate) async fn run(
        &self,
        key: &RequestKey,
        runner: Runner,
        at_least: Duration,
        deadline: Instant,
    ) -> Result<Ran, NotClaimed> {
        // Before the claim: the lease cannot have begun earlier.
        let asked_at = Instant::now();
        if asked_at + self.settings.deadline_margin + at_least >= deadline {
            return Err(NotClaimed::NoTimeLeft);
        }
        let (now, owner) = (self.clock.now(), self.owner_token());
        let claim = self.queue.claim(key, &owner, runner, now, now + self.settings.lease);
        // A claim that comes later than this leaves its handler no time.
        let claimed = timeout_at(deadline - self.settings.deadline_margin, claim).await;
        let late = |_| {
            let context = format!("claim {key}: no answer in the time that this invocation has");
            Err(StoreError::new(StoreErrorKind::Unavailable, context))
        };
        match claimed.unwrap_or_else(late).map_err(NotClaimed::Store)? {
            Claimed::Won(request, lease) => {
                tracing::info!(request = %key, action = request.action, attempt = request.attempt, "claimed");
                return Ok(Box::pin(Attempt::new(self, *request, lease, asked_at, deadline).run()).await);
            }
            // To give it back would take the store that does not answer: it costs an attempt.
            Claimed::OutOfReach(_, error) => {
                tracing::error!(request = %key, error = %Causes(&error), "claimed, and left to its lease's end");
            }
            Claimed::Unreadable(lease, error) => self.give_up(key, &lease, &error, deadline).await,
            Claimed::ForWorker => return Ok(Ran::ForWorker),
            Claimed::NotPending(status) => {
                tracing::debug!(request = %key, status = status.as_str(), "not pending: nothing to do");
            }
            Claimed::Missing => tracing::warn!(request = %key, "the request is not there (any more)"),
        }
        Ok(Ran::Done)
    }

    /// Ends a request that is ours and that nobody can read: another try would find it no better.
    async fn give_up(&self, key: &RequestKey, lease: &Lease, error: &StoreError, deadline: Instant) {
        tracing::error!(request = %key, error = %Causes(error), "the request cannot be read");
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
        match timeout_at(before(deadline, LAST_MOMENT), written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(request = %key, error = %Causes(&error), "the end was not stored");
            }
            Err(_) => {
                tracing::error!(request = %key, "the end is not known to be stored before the invocation's own")
            }
        }
    }
}
