//! Handles one due item: a request whose timer has fired.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Sweeper;
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::{Delivered, FanOut, TerminalRequest, deliver};
use crate::ids::RequestKey;
use crate::lifecycle::{Effect, Event, State, Step, step};
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::{
    AttemptOutcome, NewStatus, PastAttempt, ReclaimVerdict, RequestQueue, RequestSummary, Status, StoreError,
    StoreErrorKind,
};
use crate::telemetry::Causes;

/// Minimum wait before an incomplete delivery is retried.
const MIN_WAIT: Duration = Duration::from_secs(30);
/// Maximum wait before an incomplete delivery is retried; also the wait for a request that only an operator can
/// fix.
const MAX_WAIT: Duration = Duration::from_mins(15);

/// Time limit for delivering one terminal frame and its dead letter, and for recording the delivery.
const DELIVERY_TIME: Duration = Duration::from_secs(15);

/// An entry of the timer index, which the sweeper handles when the entry's timer fires.
#[derive(Debug)]
pub(super) enum DueItem {
    /// A request, as the query read it.
    Request(Box<RequestSummary>),
    /// A request that cannot be read, with the time of its timer and the error.
    Unreadable(Timestamp, StoreError),
}

/// A terminal request that this sweep must deliver.
#[derive(Debug)]
pub(super) struct Undelivered {
    pub(super) key: RequestKey,
    /// Time at which the request's timer fires next; `None` if unknown.
    timer_at: Option<Timestamp>,
    /// Whether to send the request's dead letter too.
    dead_letter: bool,
}

/// Result of handling a due item.
#[derive(Debug)]
pub(super) enum Handled {
    /// The pending request was written into the stream again.
    Nudged,
    /// The lease had not expired or the retry was not due; the request's timer was postponed.
    Held,
    /// The request's retry was due; the request is pending now.
    Retried,
    /// The request's lease had expired; the request is pending now, and the worker runs it again.
    Reclaimed,
    /// The sweep made the request terminal, and must deliver the terminal frame.
    Ended(Undelivered),
    /// The request was terminal already, and its delivery is not complete.
    Undelivered(Undelivered),
    /// The request has changed since the query; nothing was written.
    Changed,
    /// Only an operator can fix the request; its timer was postponed.
    Unreadable,
    /// The due item was not handled, because the store failed or did not answer.
    Failed(StoreErrorKind),
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Sweeper<Q, P, D> {
    /// Handles a due item as the state machine prescribes.
    pub(super) async fn handle(&self, key: &RequestKey, due: &DueItem) -> Handled {
        let (result, timer_at) = match due {
            DueItem::Request(seen) => {
                let timer_at = seen.timer_at.unwrap_or_default();
                (self.act(key, seen, timer_at).await, timer_at)
            }
            DueItem::Unreadable(timer_at, error) => {
                tracing::error!(
                    request = %key, error = %Causes(error),
                    "due request unreadable; operator action required"
                );
                return self.postpone_unreadable(key, *timer_at).await;
            }
        };
        match result {
            Ok(Some(handled)) => handled,
            Ok(None) => Handled::Changed,
            Err(error) => match error.kind() {
                StoreErrorKind::Throttled | StoreErrorKind::Unavailable => {
                    tracing::warn!(
                        request = %key, error = %Causes(&error),
                        "due item not handled; a later query retries"
                    );
                    Handled::Failed(error.kind())
                }
                StoreErrorKind::NotFound | StoreErrorKind::ConditionLost | StoreErrorKind::Fenced => {
                    tracing::debug!(request = %key, %error, "due item changed since the query; skipped");
                    Handled::Changed
                }
                StoreErrorKind::AlreadyExists
                | StoreErrorKind::TooLarge
                | StoreErrorKind::Corrupt
                | StoreErrorKind::Misuse => {
                    tracing::error!(
                        request = %key, error = %Causes(&error),
                        "due item cannot be handled; operator action required"
                    );
                    self.postpone_unreadable(key, timer_at).await
                }
            },
        }
    }

    /// Writes the request's next state, or carries out the effect of an unchanged state. Returns `None` if the
    /// request has changed since it was read.
    async fn act(
        &self,
        key: &RequestKey,
        seen: &RequestSummary,
        timer_at: Timestamp,
    ) -> Result<Option<Handled>, StoreError> {
        let now = self.clock.now();
        let judged_at = bugs::instead(Bug::SweeperIgnoresLeases, now + Duration::from_hours(24), now);
        let state = State::from(seen);
        let Step { state: next, effect } = step(state, Event::TimerFired, judged_at, &self.settings.rules);
        if next != state {
            return self.change(key, seen, &next, effect, now).await;
        }
        match effect {
            Some(Effect::Nudge) if bugs::is(Bug::NudgeNeverMade) => Ok(Some(Handled::Nudged)),
            Some(Effect::Nudge) => {
                let is_written = self.queue.nudge(seen, now).await?;
                if is_written {
                    tracing::warn!(request = %key, "request unclaimed; written into the stream again");
                }
                Ok(is_written.then_some(Handled::Nudged))
            }
            Some(Effect::Postpone(until)) => {
                let is_written = self.queue.postpone(key, timer_at, until).await?;
                Ok(is_written.then_some(Handled::Held))
            }
            Some(Effect::Deliver { dead_letter }) => {
                // Of two concurrent sweeps, only one moves the timer, so only one delivers. If that sweep is
                // killed, the timer fires again.
                let waited = now.since(seen.finished_at.unwrap_or_default());
                let again_at = now + waited.clamp(MIN_WAIT, MAX_WAIT);
                let is_written = self.queue.postpone(key, timer_at, again_at).await?;
                let undelivered = Undelivered { key: key.clone(), timer_at: Some(again_at), dead_letter };
                Ok(is_written.then_some(Handled::Undelivered(undelivered)))
            }
            None => Ok(None),
        }
    }

    /// Writes the request's next state: reclaims a request that was PROCESSING, and updates the status of any
    /// other request.
    async fn change(
        &self,
        key: &RequestKey,
        seen: &RequestSummary,
        next: &State,
        effect: Option<Effect>,
        now: Timestamp,
    ) -> Result<Option<Handled>, StoreError> {
        let (is_written, written) = match seen.status {
            Status::Processing => (self.reclaim(key, seen, next, now).await?, Handled::Reclaimed),
            Status::Pending | Status::Retrying | Status::Completed | Status::Failed | Status::Cancelled => {
                (self.update_status(key, seen, next, now).await?, Handled::Retried)
            }
        };
        let handled = match effect {
            Some(Effect::Deliver { dead_letter }) => {
                Handled::Ended(Undelivered { key: key.clone(), timer_at: None, dead_letter })
            }
            // The write itself appears in the stream and sets the timer, so no effect remains to carry out.
            Some(Effect::Nudge | Effect::Postpone(_)) | None => written,
        };
        Ok(is_written.then_some(handled))
    }

    /// Takes a request away from an attempt whose lease has expired. Returns `false` if the request has changed
    /// since the query; nothing is written in this case.
    async fn reclaim(
        &self,
        key: &RequestKey,
        seen: &RequestSummary,
        next: &State,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let error = ErrorBody::processing_failed();
        let crash = PastAttempt {
            attempt: seen.attempt,
            epoch: seen.epoch,
            started_at: seen.started_at,
            ended_at: now,
            outcome: AttemptOutcome::Crashed,
            error: error.clone(),
        };
        let history = crash.added_to(&seen.history);
        let decision = match next {
            State::Pending(_) => ReclaimVerdict::Rerun,
            State::Failed => ReclaimVerdict::Failed(error),
            State::Cancelled => ReclaimVerdict::Cancelled,
            State::Processing(..) | State::Retrying(..) | State::Completed => {
                return Err(unwritable(key, seen, next));
            }
        };
        if !self.queue.reclaim(seen, &decision, &history, now).await? {
            return Ok(false);
        }
        let (attempt, status) = (seen.attempt, next.status().as_str());
        tracing::warn!(request = %key, attempt, status, "lease expired; request reclaimed");
        Ok(true)
    }

    /// Writes the next status of a request that has no lease.
    async fn update_status(
        &self,
        key: &RequestKey,
        seen: &RequestSummary,
        next: &State,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let to = match next {
            State::Pending(_) => NewStatus::Pending,
            State::Failed => {
                let last = seen.history.last().map(|attempt| attempt.error.clone());
                NewStatus::Failed(last.unwrap_or_else(ErrorBody::processing_failed))
            }
            State::Cancelled => NewStatus::Cancelled,
            State::Processing(..) | State::Retrying(..) | State::Completed => {
                return Err(unwritable(key, seen, next));
            }
        };
        self.queue.update_status(key, seen.status, to, now).await?;
        tracing::info!(
            request = %key, attempt = seen.attempt, status = next.status().as_str(),
            "due request moved to its next status"
        );
        Ok(true)
    }

    /// Postpones a request that only an operator can fix, so that it does not delay the handling of other
    /// requests.
    async fn postpone_unreadable(&self, key: &RequestKey, timer_at: Timestamp) -> Handled {
        match self.queue.postpone(key, timer_at, self.clock.now() + MAX_WAIT).await {
            Ok(_) => Handled::Unreadable,
            Err(error) => {
                tracing::error!(request = %key, error = %Causes(&error), "due item could not be postponed");
                Handled::Failed(error.kind())
            }
        }
    }

    /// Delivers a terminal request: sends the terminal frame to the remaining subscribers, and the dead letter
    /// if it is due. Returns `None` if the request does not exist or is not terminal.
    ///
    /// The request's timer stays set until the delivery is complete, so that a later sweep retries an
    /// incomplete delivery.
    pub(super) async fn deliver(&self, undelivered: &Undelivered, until: Instant) -> Option<Delivered> {
        let Undelivered { key, timer_at, dead_letter } = undelivered;
        let until = until.min(Instant::now() + DELIVERY_TIME);
        let mut is_payload_lost = false;
        let read = timeout_at(until, async {
            // The terminal frame needs neither the payload nor the checkpoint, so a snapshot suffices. Only a
            // dead letter needs the payload.
            let found = self.queue.snapshot(key).await?;
            if !found.as_ref().is_some_and(|request| request.is_dead_letter_due) {
                return Ok(found);
            }
            match self.queue.get(key).await {
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    tracing::error!(
                        request = %key, error = %Causes(&error),
                        "payload unreadable; dead letter is sent without payload"
                    );
                    is_payload_lost = true;
                    Ok(found)
                }
                result => result,
            }
        })
        .await;
        let request = match read {
            Ok(Ok(request)) => request.filter(|request| request.status.is_terminal())?,
            Ok(Err(error)) => {
                tracing::error!(
                    request = %key, error = %Causes(&error),
                    "terminal request not read; terminal frame not delivered"
                );
                if let (StoreErrorKind::Corrupt, Some(timer_at)) = (error.kind(), timer_at) {
                    self.postpone_unreadable(key, *timer_at).await;
                }
                return Some(Delivered::Partly);
            }
            Err(_) => {
                tracing::error!(
                    request = %key,
                    "reading terminal request timed out; terminal frame not delivered"
                );
                return Some(Delivered::Partly);
            }
        };
        let push_timeout = self.settings.push_timeout;
        // A terminal request has no lease and no progress to push, so the lease time of the fan-out does not
        // matter.
        let fan_out = FanOut::new(&self.connections, key.clone(), push_timeout, Instant::now(), Vec::new());
        let audience = request.subscribers.clone();
        let end = TerminalRequest { audience, part_ttls_set: false, is_payload_lost, request: &request };
        let dead_letters = dead_letter.then_some(&self.dead_letters);
        let delivered = deliver(&self.queue, dead_letters, fan_out, end, until, push_timeout).await;
        match delivered {
            Delivered::Fully => tracing::info!(request = %key, "terminal request delivered"),
            Delivered::Partly => {
                tracing::warn!(request = %key, "delivery incomplete; a later sweep retries");
            }
        }
        Some(delivered)
    }
}

/// Returns the error for a next state that only the holder of a lease may write.
fn unwritable(key: &RequestKey, seen: &RequestSummary, next: &State) -> StoreError {
    let (from, to) = (seen.status.as_str(), next.status().as_str());
    StoreError::new(
        StoreErrorKind::Misuse,
        format!("a timer cannot change request {key} from {from} to {to}"),
    )
}
