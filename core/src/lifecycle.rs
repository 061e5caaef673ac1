//! The state machine of a request, as a pure function: from a state, an event and the time, [`step`] computes the next state
//! and the effect that follows it.
//!
//! The caller writes the next state and then executes the effect: the executor for the outcome of its attempt, the sweeper for
//! a timer that has fired. Claims, and cancellations by a user, are decided by the store's conditions; a test holds each of
//! those writes to this function.
//!
//! ```text
//! PENDING ──claimed──▶ PROCESSING ──succeeded──▶ COMPLETED
//!    ▲                    │  │ ├────failed for good──▶ FAILED
//!    ├──yielded, crashed──┘  │ └────stopped──▶ CANCELLED ◀── cancelled: PENDING, RETRYING
//!    └──due── RETRYING ◀──failed
//! ```
//!
//! The store's conditions are the same rules, write by write: of two writers that act on the same state, one succeeds. An event
//! that comes too late, or twice, changes nothing and has no effect.

use std::time::Duration;

use crate::config::Environment;
use crate::ports::Timestamp;
use crate::store::{Request, RequestSummary, Status};

/// Where a request stands, and what its future hangs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Waiting to be claimed.
    Pending(Budget),
    /// Run by whoever holds it.
    Processing(Budget, Hold),
    /// Failed, and waiting until this moment for its next attempt.
    Retrying(Budget, Timestamp),
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by its user or an operator.
    Cancelled,
}

/// What a request has used up, and may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Attempts that were begun.
    pub used: u32,
    /// Attempts that may be.
    pub allowed: u32,
    /// How often an attempt went on in a fresh invocation.
    pub continuations: u32,
}

/// The lease under which a request is run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    /// When it ends, unless it is renewed.
    pub until: Timestamp,
    /// Whether the holder is asked to stop.
    pub cancel_requested: bool,
}

/// What has happened to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Somebody wants to run it until then.
    Claimed {
        /// The end of the lease.
        until: Timestamp,
    },
    /// Its attempt has a result.
    Succeeded,
    /// Its attempt has failed. If it is worth another, that is due then.
    Failed {
        /// When the next attempt would be due.
        next: Option<Timestamp>,
    },
    /// Its attempt wants to go on from its checkpoint in a fresh invocation.
    Yielded,
    /// Its attempt has stopped, as it was asked to.
    Stopped,
    /// Its user or an operator wants it to end.
    CancelAsked,
    /// Its timer has fired.
    TimerFired,
}

/// A command to the caller of [`step`], to execute once it has written the next state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Write the pending request once more, so that it appears in the table's stream again.
    Nudge,
    /// Set its timer, which has fired early, to this moment.
    Postpone(Timestamp),
    /// Deliver the terminal frame to every subscriber that does not have it.
    Deliver {
        /// Whether to send the request's dead letter too, unless it was sent.
        dead_letter: bool,
    },
}

/// How long after its end a lease counts as lost, to allow for clocks that differ.
pub const LEASE_GRACE: Duration = Duration::from_secs(10);

/// What the rules leave to settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How often a request may go on in a fresh invocation. Default 100, which is a day of 15-minute invocations.
    pub max_continuations: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_continuations: 100 }
    }
}

impl Rules {
    /// Reads `MAX_CONTINUATIONS`, as [`lambda`](crate::lambda) has it.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let default = Self::default().max_continuations;
        let times = environment.number("MAX_CONTINUATIONS", "times", default.into(), 0..=10_000);
        Self { max_continuations: u32::try_from(times).unwrap_or(default) }
    }
}

/// What an event makes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its next state.
    pub state: State,
    /// The effect that follows once that state is written.
    pub effect: Option<Effect>,
}

/// What `event` at `now` makes of a request that stands as `state` says.
#[must_use]
pub fn step(state: State, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match state {
        State::Pending(budget) => pending(budget, event),
        State::Processing(budget, hold) => processing(budget, hold, event, now, rules),
        State::Retrying(budget, due) => retrying(budget, due, event, now),
        State::Completed | State::Failed | State::Cancelled => terminal(state, event),
    }
}

fn pending(budget: Budget, event: Event) -> Step {
    match event {
        Event::Claimed { until } => claimed(budget, until),
        Event::CancelAsked => ended(State::Cancelled),
        Event::TimerFired => Step { state: State::Pending(budget), effect: Some(Effect::Nudge) },
        Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            to(State::Pending(budget))
        }
    }
}

fn processing(budget: Budget, hold: Hold, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match event {
        Event::Claimed { .. } => to(State::Processing(budget, hold)),
        Event::Succeeded => ended(State::Completed),
        Event::Stopped => ended(State::Cancelled),
        Event::Failed { .. } | Event::Yielded if hold.cancel_requested => ended(State::Cancelled),
        Event::Failed { next: Some(due) } if budget.used < budget.allowed => to(State::Retrying(budget, due)),
        Event::Failed { .. } => ended(State::Failed),
        Event::Yielded if budget.continuations < rules.max_continuations => {
            let Budget { used, allowed, continuations } = budget;
            let budget = Budget { used: used.saturating_sub(1), allowed, continuations: continuations + 1 };
            to(State::Pending(budget))
        }
        Event::Yielded => ended(State::Failed),
        Event::CancelAsked => to(State::Processing(budget, Hold { cancel_requested: true, ..hold })),
        Event::TimerFired => {
            let lost_at = hold.until + LEASE_GRACE;
            if now < lost_at {
                Step { state: State::Processing(budget, hold), effect: Some(Effect::Postpone(lost_at)) }
            } else if hold.cancel_requested {
                ended(State::Cancelled)
            } else {
                again_or_failed(budget)
            }
        }
    }
}

fn retrying(budget: Budget, due: Timestamp, event: Event, now: Timestamp) -> Step {
    match event {
        Event::Claimed { until } if due <= now && budget.used < budget.allowed => claimed(budget, until),
        Event::CancelAsked => ended(State::Cancelled),
        Event::TimerFired if now < due => {
            Step { state: State::Retrying(budget, due), effect: Some(Effect::Postpone(due)) }
        }
        Event::TimerFired => again_or_failed(budget),
        Event::Claimed { .. } | Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            to(State::Retrying(budget, due))
        }
    }
}

/// A terminal state never changes. Its timer fires until the terminal frame is delivered.
fn terminal(state: State, event: Event) -> Step {
    match event {
        Event::TimerFired => ended(state),
        Event::Claimed { .. }
        | Event::Succeeded
        | Event::Failed { .. }
        | Event::Yielded
        | Event::Stopped
        | Event::CancelAsked => to(state),
    }
}

fn claimed(budget: Budget, until: Timestamp) -> Step {
    let budget = Budget { used: budget.used + 1, ..budget };
    to(State::Processing(budget, Hold { until, cancel_requested: false }))
}

fn again_or_failed(budget: Budget) -> Step {
    if budget.used < budget.allowed { to(State::Pending(budget)) } else { ended(State::Failed) }
}

/// The next state, and no effect: the write of an open state appears in the stream by itself, and sets the timer.
const fn to(state: State) -> Step {
    Step { state, effect: None }
}

const fn ended(state: State) -> Step {
    Step { state, effect: Some(Effect::Deliver { dead_letter: matches!(state, State::Failed) }) }
}

impl From<&RequestSummary> for State {
    fn from(request: &RequestSummary) -> Self {
        let budget = Budget {
            used: request.attempt,
            allowed: request.max_attempts,
            continuations: request.continuations,
        };
        match request.status {
            Status::Pending => Self::Pending(budget),
            // Without a lease, which no write of ours leaves it, it is nobody's.
            Status::Processing => Self::Processing(
                budget,
                Hold {
                    until: request.lease.as_ref().map(|lease| lease.expires_at).unwrap_or_default(),
                    cancel_requested: request.cancel_requested,
                },
            ),
            Status::Retrying => Self::Retrying(budget, request.timer_at.unwrap_or_default()),
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

impl State {
    /// A request that was claimed until then, and has not been looked at since.
    #[must_use]
    pub fn held(request: &Request, until: Timestamp) -> Self {
        let budget = Budget {
            used: request.attempt,
            allowed: request.max_attempts,
            continuations: request.continuations,
        };
        Self::Processing(budget, Hold { until, cancel_requested: request.cancel_requested })
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending(_) => Status::Pending,
            Self::Processing(..) => Status::Processing,
            Self::Retrying(..) => Status::Retrying,
            Self::Completed => Status::Completed,
            Self::Failed => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests;
