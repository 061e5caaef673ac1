//! Finishes an attempt: writes the outcome, and delivers the terminal frame if the request is terminal.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Attempt;
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::{REPLY_MARGIN, before};
use crate::delivery::{TerminalFrame, TerminalRequest, deliver};
use crate::executor::RunResult;
use crate::executor::ending::{AttemptEnding, Circumstances, write_ending};
use crate::executor::outcome::{Failure, Outcome};
use crate::lifecycle::Effect;
use crate::ports::Timestamp;
use crate::store::{Audience, Ending, LastReport, PastAttempt, RequestQueue, StoreErrorKind};
use crate::telemetry::Causes;

/// Time reserved for writing the outcome, even if slow clients have not received the last progress frame yet.
const MIN_WRITE_TIME: Duration = Duration::from_secs(2);

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'_, Q, P, D> {
    /// Writes the attempt's ending (terminal, retry or yield), and delivers the terminal frame if the ending is
    /// terminal.
    pub(super) async fn finish(mut self, outcome: Outcome) -> RunResult {
        let executor = self.executor;
        let now = executor.clock.now();
        let until = before(self.deadline, REPLY_MARGIN);
        let mut outcome = self.deliverable(outcome, now);
        let jitter = executor.jitter();
        let (mut ending, mut effect) = self.ending(&outcome, jitter, now);
        if !ending.is_terminal() {
            // After this write a different attempt may claim the request and push frames immediately. So the
            // sends of this attempt must finish first.
            let flush_until = Instant::now() + executor.settings.push_timeout;
            self.fan_out.flush(flush_until.min(before(until, MIN_WRITE_TIME))).await;
        }
        let mut is_replaced = false;
        let (last, audience) = loop {
            let seq = if ending.is_terminal() { self.seq.next() } else { self.seq };
            let last = LastReport { progress: self.pushed.clone(), seq, at: now };
            let written = async {
                if bugs::is(Bug::PushBeforeWrite) || bugs::is(Bug::DeadLetterBeforeStatus) {
                    Box::pin(self.run_early_side_effects(&ending, &last)).await;
                }
                let write = write_ending(executor, &self.key, &self.lease, &ending, &last);
                if ending.is_terminal() {
                    // Progress sends continue during the write. The write itself detects whether the lease is
                    // lost.
                    self.fan_out.advance_during(write).await
                } else {
                    write.await
                }
            };
            let error = match timeout_at(until, written).await {
                Ok(Ok(audience)) => break (last, audience),
                Ok(Err(error)) => error,
                Err(_) => {
                    tracing::error!(request = %self.key, "outcome write unconfirmed at invocation deadline");
                    return RunResult::Done;
                }
            };
            let kind = error.kind();
            if kind == StoreErrorKind::ConditionLost && !self.request.cancel_requested {
                // The write failed because a cancel was requested that the attempt did not know of. The next
                // round of the loop computes the attempt's ending again, with the cancel.
                self.request.cancel_requested = true;
            } else if kind == StoreErrorKind::TooLarge && ending.is_terminal() && !is_replaced {
                is_replaced = true;
                outcome = Outcome::too_large();
            } else if kind == StoreErrorKind::Fenced {
                tracing::warn!(
                    request = %self.key, epoch = self.lease.epoch,
                    "lease lost; attempt stops without writing"
                );
                return RunResult::Done;
            } else {
                tracing::error!(request = %self.key, error = %Causes(&error), "outcome write failed");
                return RunResult::Done;
            }
            (ending, effect) = self.ending(&outcome, jitter, now);
        };
        let (ending, history) = match ending {
            AttemptEnding::Terminal(ending, history) => (ending, history),
            AttemptEnding::Retry { due, .. } => {
                tracing::info!(request = %self.key, %due, "attempt failed; request waits for its next attempt");
                return RunResult::RetryAt(Instant::now() + due.since(executor.clock.now()));
            }
            AttemptEnding::Yield => {
                tracing::info!(request = %self.key, "request yielded; continues in a fresh invocation");
                return RunResult::Done;
            }
        };
        tracing::info!(request = %self.key, status = ending.status().as_str(), "request finished");
        let dead_letter = match effect {
            Some(Effect::Deliver { dead_letter }) => dead_letter,
            // Cannot happen: the effect of a terminal state is always `Deliver`.
            Some(Effect::Nudge | Effect::Postpone(_)) | None => return RunResult::Done,
        };
        let late_progress = self.late_progress(&audience);
        self.apply_ending(ending, history, dead_letter, &last);
        let Audience { subscribers, part_ttls_set, cancel_requested: _ } = audience;
        let end = TerminalRequest {
            request: &self.request,
            audience: subscribers.into_iter().map(|subscriber| subscriber.connection).collect(),
            part_ttls_set,
            is_payload_lost: false,
        };
        let dead_letters = dead_letter.then_some(&executor.dead_letters);
        let push_timeout = executor.settings.push_timeout;
        deliver(&executor.queue, dead_letters, self.fan_out, end, until, push_timeout).await;
        for (to, frame) in late_progress {
            let _ = executor.connections.send(&to, &frame).await;
        }
        RunResult::Done
    }

    /// Returns `outcome` unchanged, or a failure if the outcome's result is too large for a frame.
    fn deliverable(&self, outcome: Outcome, now: Timestamp) -> Outcome {
        match outcome {
            Outcome::Succeeded(result) => match self.fit_to_frame(Ending::Completed(result), now) {
                Ending::Completed(result) => Outcome::Succeeded(result),
                Ending::Failed(error) => Outcome::Failed(Failure::for_good(error)),
                Ending::Cancelled => Outcome::Stopped,
            },
            Outcome::Yielded | Outcome::Stopped | Outcome::Failed(_) => outcome,
        }
    }

    /// Returns `ending` unchanged, or a failure if `ending` is too large for a terminal frame.
    fn fit_to_frame(&self, ending: Ending, now: Timestamp) -> Ending {
        TerminalFrame::of(&self.request.id, ending, self.seq.next(), now).ending
    }

    /// Returns the attempt's ending after `outcome`, and the effect to carry out once the ending is written.
    ///
    /// A terminal ending that this method returns always fits into a frame.
    fn ending(&self, outcome: &Outcome, jitter: f64, now: Timestamp) -> (AttemptEnding, Option<Effect>) {
        let circumstances = Circumstances {
            request: &self.request,
            lease: &self.lease,
            policy: &self.policy,
            rules: &self.executor.settings.rules,
            jitter,
            now,
        };
        let (ending, effect) = AttemptEnding::after(outcome, circumstances);
        let ending = match ending {
            AttemptEnding::Terminal(ending, history) => {
                AttemptEnding::Terminal(self.fit_to_frame(ending, now), history)
            }
            open @ (AttemptEnding::Retry { .. } | AttemptEnding::Yield) => open,
        };
        (ending, effect)
    }

    /// Updates the request in memory to match its terminal write.
    fn apply_ending(
        &mut self,
        ending: Ending,
        history: Vec<PastAttempt>,
        dead_letter: bool,
        last: &LastReport,
    ) {
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
