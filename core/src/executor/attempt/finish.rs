//! What follows an attempt's outcome: its ending is written, and an end is delivered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Attempt;
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::{LAST_MOMENT, before};
use crate::delivery::{EndedRequest, TerminalFrame, deliver};
use crate::executor::Ran;
use crate::executor::ending::{AttemptEnding, Circumstances, write_ending};
use crate::executor::outcome::{Failure, Outcome};
use crate::lifecycle::Effect;
use crate::ports::Timestamp;
use crate::store::{Audience, Ending, LastReport, PastAttempt, RequestQueue, StoreErrorKind};
use crate::telemetry::Causes;

/// How much of the time to write is kept from clients that take long to take the last report.
const LEAST_WRITE_TIME: Duration = Duration::from_secs(2);

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'_, Q, P, D> {
    /// Writes the attempt's ending, and executes the effect that follows it.
    pub(super) async fn finish(mut self, outcome: Outcome) -> Ran {
        let executor = self.executor;
        let now = executor.clock.now();
        let until = before(self.deadline, LAST_MOMENT);
        let mut outcome = self.deliverable(outcome, now);
        let chance = executor.chance();
        let (mut ending, mut effect) = self.ending(&outcome, chance, now);
        if !ending.is_terminal() {
            // Whoever claims it next pushes at once: what we have to say is said before that.
            let flush_until = Instant::now() + executor.settings.push_timeout;
            self.fan_out.flush(flush_until.min(before(until, LEAST_WRITE_TIME))).await;
        }
        let mut is_replaced = false;
        let (last, audience) = loop {
            let seq = if ending.is_terminal() { self.seq.next() } else { self.seq };
            let last = LastReport { progress: self.pushed.clone(), seq, at: now };
            let written = async {
                if bugs::is(Bug::PushBeforeWrite) || bugs::is(Bug::DeadLetterBeforeStatus) {
                    Box::pin(self.before_it_is_written(&ending, &last)).await;
                }
                let write = write_ending(executor, &self.key, &self.lease, &ending, &last);
                if ending.is_terminal() {
                    // The last report is on its way meanwhile. Whether the attempt may still say anything is for the write to find.
                    self.fan_out.advance_during(write).await
                } else {
                    write.await
                }
            };
            let error = match timeout_at(until, written).await {
                Ok(Ok(audience)) => break (last, audience),
                Ok(Err(error)) => error,
                Err(_) => {
                    tracing::error!(request = %self.key, "what becomes of it is not known to be stored before the invocation's end");
                    return Ran::Done;
                }
            };
            let kind = error.kind();
            if kind == StoreErrorKind::ConditionLost && !self.request.cancel_requested {
                // Its end is asked for, and the attempt had not heard of it.
                self.request.cancel_requested = true;
            } else if kind == StoreErrorKind::TooLarge && ending.is_terminal() && !is_replaced {
                is_replaced = true;
                outcome = Outcome::too_large();
            } else if kind == StoreErrorKind::Fenced {
                tracing::warn!(request = %self.key, epoch = self.lease.epoch, "the lease is lost: nothing is written or told");
                return Ran::Done;
            } else {
                tracing::error!(request = %self.key, error = %Causes(&error), "what becomes of it was not stored");
                return Ran::Done;
            }
            (ending, effect) = self.ending(&outcome, chance, now);
        };
        let (ending, history) = match ending {
            AttemptEnding::Ended(ending, history) => (ending, history),
            AttemptEnding::Retried { due, .. } => {
                tracing::info!(request = %self.key, %due, "waits for its next attempt");
                return Ran::RetryAt(Instant::now() + due.since(executor.clock.now()));
            }
            AttemptEnding::Continued => {
                tracing::info!(request = %self.key, "goes on in a fresh invocation");
                return Ran::Done;
            }
        };
        tracing::info!(request = %self.key, status = ending.status().as_str(), "ended");
        let dead_letter = match effect {
            Some(Effect::Deliver { dead_letter }) => dead_letter,
            // The write itself appears in the stream, and sets the timer.
            Some(Effect::Nudge | Effect::Postpone(_)) | None => return Ran::Done,
        };
        let late_reports = self.late_reports(&audience);
        self.note_end(ending, history, dead_letter, &last);
        let Audience { subscribers, parts_released, cancel_requested: _ } = audience;
        let end = EndedRequest {
            request: &self.request,
            audience: subscribers.into_iter().map(|subscriber| subscriber.connection).collect(),
            parts_released,
            is_payload_lost: false,
        };
        let dead_letters = dead_letter.then_some(&executor.dead_letters);
        let push_timeout = executor.settings.push_timeout;
        deliver(&executor.queue, dead_letters, self.fan_out, end, until, push_timeout).await;
        for (to, frame) in late_reports {
            let _ = executor.connections.send(&to, &frame).await;
        }
        Ran::Done
    }

    /// The outcome, unless it is a result that no frame can carry.
    fn deliverable(&self, outcome: Outcome, now: Timestamp) -> Outcome {
        match outcome {
            Outcome::Succeeded(result) => match self.in_a_frame(Ending::Completed(result), now) {
                Ending::Completed(result) => Outcome::Succeeded(result),
                Ending::Failed(error) => Outcome::Failed(Failure::for_good(error)),
                Ending::Cancelled => Outcome::Stopped,
            },
            Outcome::Yielded | Outcome::Stopped | Outcome::Failed(_) => outcome,
        }
    }

    /// The ending that the terminal frame of this ending carries.
    fn in_a_frame(&self, ending: Ending, now: Timestamp) -> Ending {
        TerminalFrame::of(&self.request.id, ending, self.seq.next(), now).ending
    }

    /// The ending after this outcome, and the effect that follows it; an end is one that a frame can carry.
    fn ending(&self, outcome: &Outcome, chance: f64, now: Timestamp) -> (AttemptEnding, Option<Effect>) {
        let circumstances = Circumstances {
            request: &self.request,
            lease: &self.lease,
            policy: &self.policy,
            rules: &self.executor.settings.rules,
            chance,
            now,
        };
        let (ending, effect) = AttemptEnding::after(outcome, circumstances);
        let ending = match ending {
            AttemptEnding::Ended(ending, history) => {
                AttemptEnding::Ended(self.in_a_frame(ending, now), history)
            }
            open @ (AttemptEnding::Retried { .. } | AttemptEnding::Continued) => open,
        };
        (ending, effect)
    }

    /// Has the request be as its last write has left it.
    fn note_end(&mut self, ending: Ending, history: Vec<PastAttempt>, dead_letter: bool, last: &LastReport) {
        let request = &mut self.request;
        request.history = history;
        request.status = ending.status();
        request.is_dead_letter_due = dead_letter;
        if dead_letter {
            request.payload = Arc::unwrap_or_clone(std::mem::take(&mut self.payload));
        }
        request.ending = Some(ending);
        request.seq = last.seq;
        request.finished_at = Some(last.at);
    }
}
