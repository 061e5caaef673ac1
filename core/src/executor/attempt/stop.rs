//! When a handler is to stop, and what its attempt's outcome is then.

use std::time::Duration;

use tokio::time::Instant;

use super::{Attempt, LeaseLost, Stop};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::before;
use crate::executor::outcome::{HandlerEnd, Outcome};
use crate::progress::{Reports, StopReason};
use crate::store::RequestQueue;

/// How much of an invocation is kept for writing what has become of its requests, however long a handler may take to stop.
const WRITE_TIME: Duration = Duration::from_secs(4);

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'_, Q, P, D> {
    /// When the handler is told that its invocation ends.
    pub(super) fn time_is_up(&self) -> Instant {
        before(self.deadline, self.executor.settings.deadline_margin)
    }

    /// Asks the handler to stop. The first reason counts, unless the lease is lost: then nothing does any more.
    pub(super) fn stop_handler(&mut self, reason: StopReason, reports: &mut Reports) {
        let now = Instant::now();
        match &mut self.stop {
            Some(stop) if reason == StopReason::LeaseLost => stop.reason = reason,
            Some(_) => return,
            stop @ None => {
                tracing::info!(request = %self.key, ?reason, "the handler is told to stop");
                let until = now + self.executor.settings.stop_grace;
                // However long it has, there is time to write what has come of it.
                *stop = Some(Stop { reason, until: until.min(before(self.deadline, WRITE_TIME)) });
            }
        }
        reports.stop(reason);
        if reason == StopReason::LeaseLost {
            reports.refuse_checkpoints();
        }
    }

    /// What has come of a handler that has ended, or was dropped since it did not.
    pub(super) fn outcome(&self, ended: Option<HandlerEnd>) -> Result<Outcome, LeaseLost> {
        let has_checkpoint = self.has_saved || self.had_checkpoint;
        let outcome = ended.map(|ended| Outcome::of(ended, has_checkpoint, &self.policy, &self.key));
        match (self.stop.map(|stop| stop.reason), outcome) {
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
}
