//! Stops a handler, and decides the outcome of its attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::{Attempt, LeaseLost, Stop};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::before;
use crate::executor::outcome::{HandlerResult, Outcome};
use crate::progress::{Reports, StopReason};
use crate::store::RequestQueue;

/// Time at the end of an invocation that is reserved for writing outcomes, even if the stop grace period is
/// longer.
const WRITE_TIME: Duration = Duration::from_secs(4);

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'_, Q, P, D> {
    /// Returns the instant at which the handler is asked to stop because its invocation ends soon.
    pub(super) fn handler_deadline(&self) -> Instant {
        before(self.deadline, self.executor.settings.deadline_margin)
    }

    /// Asks the handler to stop. The first reason is kept, except that a lost lease replaces an earlier reason.
    pub(super) fn stop_handler(&mut self, reason: StopReason, reports: &mut Reports) {
        let now = Instant::now();
        match &mut self.stop {
            Some(stop) if reason == StopReason::LeaseLost => stop.reason = reason,
            Some(_) => return,
            stop @ None => {
                tracing::info!(request = %self.key, ?reason, "handler was told to stop");
                let until = now + self.executor.settings.stop_grace;
                // The grace period is cut short to leave time for writing the outcome.
                *stop = Some(Stop { reason, until: until.min(before(self.deadline, WRITE_TIME)) });
            }
        }
        reports.stop(reason);
        if reason == StopReason::LeaseLost {
            reports.refuse_checkpoints();
        }
    }

    /// Returns the outcome of the attempt; `handler_result` is `None` if the handler did not stop in time.
    pub(super) fn outcome(&self, handler_result: Option<HandlerResult>) -> Result<Outcome, LeaseLost> {
        let has_checkpoint = self.has_saved || self.had_checkpoint;
        let outcome =
            handler_result.map(|result| Outcome::of(result, has_checkpoint, &self.policy, &self.key));
        match (self.stop.map(|stop| stop.reason), outcome) {
            (Some(StopReason::LeaseLost), _) => Err(LeaseLost),
            (Some(StopReason::Cancelled), _) => Ok(Outcome::Stopped),
            (None, Some(outcome)) => Ok(outcome),
            // A result or a yield counts even after the stop request. An ordinary error does not count, because
            // the stop request may have caused it.
            (
                Some(StopReason::TimeLimitReached),
                Some(outcome @ (Outcome::Succeeded(_) | Outcome::Yielded)),
            ) => Ok(outcome),
            // The handler's own timeout and a final error count even after the stop request.
            (Some(StopReason::TimeLimitReached), Some(outcome))
                if outcome.is_timeout() || outcome.is_final() =>
            {
                Ok(outcome)
            }
            (Some(StopReason::TimeLimitReached), _) if self.has_saved => Ok(Outcome::Yielded),
            (Some(StopReason::TimeLimitReached) | None, _) => {
                Ok(Outcome::out_of_time(&self.policy, self.request.runner))
            }
        }
    }
}
