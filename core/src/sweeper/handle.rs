//! What is done about one request whose timer has fired.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Sweeper;
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::{Delivered, EndedRequest, FanOut, deliver};
use crate::ids::RequestKey;
use crate::lifecycle::{Effect, Event, State, Step, step};
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::{
    Abandoned, AttemptOutcome, NewStatus, PastAttempt, RequestQueue, RequestSummary, Status, StoreError,
    StoreErrorKind,
};
use crate::telemetry::Causes;

/// After how long somebody who could not be told of an end is tried again, at the least.
const SHORTEST_WAIT: Duration = Duration::from_secs(30);
/// The same at the most; and after how long that is looked at again which only an operator can mend.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// How long it may take to tell an end, with its dead letter, and to note that.
const DELIVERY_TIME: Duration = Duration::from_secs(15);

/// Something that is to be done when its timer fires.
#[derive(Debug)]
pub(super) enum DueItem {
    /// A request, as it was seen.
    Request(Box<RequestSummary>),
    /// One that cannot be read, and whose timer was seen to fire then.
    Unreadable(Timestamp, StoreError),
}

/// An end that is ours to tell.
#[derive(Debug)]
pub(super) struct Undelivered {
    pub(super) key: RequestKey,
    /// When its timer fires again, where that is known.
    timer_at: Option<Timestamp>,
    /// Whether its dead letter is sent too.
    dead_letter: bool,
}

/// What was done about a request.
#[derive(Debug)]
pub(super) enum Handled {
    Nudged,
    Held,
    Retried,
    TakenBack,
    /// It has ended by that, and is to be told.
    Ended(Undelivered),
    /// It had ended before, and is to be told.
    Undelivered(Undelivered),
    MovedOn,
    Unreadable,
    /// The store has not done it.
    Failed(StoreErrorKind),
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Sweeper<Q, P, D> {
    /// Does what is to be done about a request by the rules.
    pub(super) async fn handle(&self, key: &RequestKey, due: &DueItem) -> Handled {
        let (done, timer_at) = match due {
            DueItem::Request(seen) => {
                let timer_at = seen.timer_at.unwrap_or_default();
                (self.act(key, seen, timer_at).await, timer_at)
            }
            DueItem::Unreadable(timer_at, error) => {
                tracing::error!(request = %key, error = %Causes(error), "it is due, and cannot be read");
                return self.postpone_unreadable(key, *timer_at).await;
            }
        };
        match done {
            Ok(Some(acted)) => acted,
            Ok(None) => Handled::MovedOn,
            Err(error) => match error.kind() {
                StoreErrorKind::Throttled | StoreErrorKind::Unavailable => {
                    tracing::warn!(request = %key, error = %Causes(&error), "not seen to: the next look finds it again");
                    Handled::Failed(error.kind())
                }
                StoreErrorKind::NotFound | StoreErrorKind::ConditionLost | StoreErrorKind::Fenced => {
                    tracing::debug!(request = %key, %error, "it has moved on");
                    Handled::MovedOn
                }
                StoreErrorKind::AlreadyExists
                | StoreErrorKind::TooLarge
                | StoreErrorKind::Corrupt
                | StoreErrorKind::Misuse => {
                    tracing::error!(request = %key, error = %Causes(&error), "it is due, and nothing can be done about it");
                    self.postpone_unreadable(key, timer_at).await
                }
            },
        }
    }

    /// Writes the state that the rules lead to, and executes their effect; `None` where the request has moved on from how it
    /// was seen.
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
                let done = self.queue.nudge(seen, now).await?;
                if done {
                    tracing::warn!(request = %key, "nobody has claimed it: it appears in the stream once more");
                }
                Ok(done.then_some(Handled::Nudged))
            }
            Some(Effect::Postpone(until)) => {
                let done = self.queue.postpone(key, timer_at, until).await?;
                Ok(done.then_some(Handled::Held))
            }
            Some(Effect::Deliver { dead_letter }) => {
                // Of two runs at once, one moves the timer, and so one delivers; should that one be killed, the timer fires again.
                let waited = now.since(seen.finished_at.unwrap_or_default());
                let again_at = now + waited.clamp(SHORTEST_WAIT, LONGEST_WAIT);
                let done = self.queue.postpone(key, timer_at, again_at).await?;
                let undelivered = Undelivered { key: key.clone(), timer_at: Some(again_at), dead_letter };
                Ok(done.then_some(Handled::Undelivered(undelivered)))
            }
            None => Ok(None),
        }
    }

    /// Writes the state that follows how a request was seen: by taking it back where a lease holds it, else by its status.
    async fn change(
        &self,
        key: &RequestKey,
        seen: &RequestSummary,
        next: &State,
        effect: Option<Effect>,
        now: Timestamp,
    ) -> Result<Option<Handled>, StoreError> {
        let (is_written, written) = match seen.status {
            Status::Processing => (self.take_back(key, seen, next, now).await?, Handled::TakenBack),
            Status::Pending | Status::Retrying | Status::Completed | Status::Failed | Status::Cancelled => {
                (self.update_status(key, seen, next, now).await?, Handled::Retried)
            }
        };
        let handled = match effect {
            Some(Effect::Deliver { dead_letter }) => {
                Handled::Ended(Undelivered { key: key.clone(), timer_at: None, dead_letter })
            }
            // The write itself appears in the stream, and sets the timer.
            Some(Effect::Nudge | Effect::Postpone(_)) | None => written,
        };
        Ok(is_written.then_some(handled))
    }

    /// Takes a request from an attempt that has not renewed its lease. Says whether it did so.
    async fn take_back(
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
        let verdict = match next {
            State::Pending(_) => Abandoned::Again,
            State::Failed => Abandoned::Failed(error),
            State::Cancelled => Abandoned::Cancelled,
            State::Processing(..) | State::Retrying(..) | State::Completed => {
                return Err(unwritable(key, seen, next));
            }
        };
        if !self.queue.take_back(seen, &verdict, &history, now).await? {
            return Ok(false);
        }
        let (attempt, status) = (seen.attempt, next.status().as_str());
        tracing::warn!(request = %key, attempt, status, "its lease has ended without a word: it was taken back");
        Ok(true)
    }

    /// Gives a request that nobody runs its next status.
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
        tracing::info!(request = %key, attempt = seen.attempt, status = next.status().as_str(), "its wait is over");
        Ok(true)
    }

    /// Keeps what only an operator can mend out of the way of everything else.
    async fn postpone_unreadable(&self, key: &RequestKey, timer_at: Timestamp) -> Handled {
        match self.queue.postpone(key, timer_at, self.clock.now() + LONGEST_WAIT).await {
            Ok(_) => Handled::Unreadable,
            Err(error) => {
                tracing::error!(request = %key, error = %Causes(&error), "it was not put off");
                Handled::Failed(error.kind())
            }
        }
    }

    /// Tells an end to whoever has not heard of it, and says where that stands; `None` if it has no end.
    ///
    /// Its timer fires after this was begun: what is not done by then is tried again.
    pub(super) async fn deliver(&self, undelivered: &Undelivered, until: Instant) -> Option<Delivered> {
        let Undelivered { key, timer_at, dead_letter } = undelivered;
        let until = until.min(Instant::now() + DELIVERY_TIME);
        let mut is_payload_lost = false;
        let read = timeout_at(until, async {
            // What is told needs neither the payload nor a checkpoint; a dead letter needs the payload.
            let found = self.queue.snapshot(key).await?;
            if !found.as_ref().is_some_and(|request| request.is_dead_letter_due) {
                return Ok(found);
            }
            match self.queue.get(key).await {
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    tracing::error!(request = %key, error = %Causes(&error), "its payload cannot be read: its letter goes without");
                    is_payload_lost = true;
                    Ok(found)
                }
                whole => whole,
            }
        })
        .await;
        let request = match read {
            Ok(Ok(request)) => request.filter(|request| request.status.is_terminal())?,
            Ok(Err(error)) => {
                tracing::error!(request = %key, error = %Causes(&error), "its end cannot be told: it cannot be read");
                if let (StoreErrorKind::Corrupt, Some(timer_at)) = (error.kind(), timer_at) {
                    self.postpone_unreadable(key, *timer_at).await;
                }
                return Some(Delivered::Partly);
            }
            Err(_) => {
                tracing::error!(request = %key, "its end is not told yet: the store has not answered");
                return Some(Delivered::Partly);
            }
        };
        let push_timeout = self.settings.push_timeout;
        // Nobody holds a lease: there is no progress to be sent, only the end.
        let fan_out = FanOut::new(&self.connections, key.clone(), push_timeout, Instant::now(), Vec::new());
        let audience = request.subscribers.clone();
        let end = EndedRequest { audience, parts_released: false, is_payload_lost, request: &request };
        let dead_letters = dead_letter.then_some(&self.dead_letters);
        let delivered = deliver(&self.queue, dead_letters, fan_out, end, until, push_timeout).await;
        match delivered {
            Delivered::Fully => tracing::info!(request = %key, "its end is told"),
            Delivered::Partly => {
                tracing::warn!(request = %key, "not everybody could be told of its end yet");
            }
        }
        Some(delivered)
    }
}

/// The rules lead to a state that only the holder of a lease can write.
fn unwritable(key: &RequestKey, seen: &RequestSummary, next: &State) -> StoreError {
    let (from, to) = (seen.status.as_str(), next.status().as_str());
    StoreError::new(StoreErrorKind::Misuse, format!("request {key}: no timer makes it {to} from {from}"))
}
