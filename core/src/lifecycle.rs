//! The state machine of a request, as a pure function: [`step`] computes the next state and its effect from a
//! state, an event and the time.
//!
//! The caller writes the next state and then carries out the effect. The executor calls [`step`] for the
//! outcome of an attempt, the sweeper for a timer that has fired. Claims and cancellations are decided by the
//! conditions of the store's writes instead; tests check that each of those writes agrees with this function.
//!
//! ```text
//! PENDING ──claimed──▶ PROCESSING ──succeeded──▶ COMPLETED
//!    ▲                    │  │ ├────failed for good──▶ FAILED
//!    ├──yielded, crashed──┘  │ └────stopped──▶ CANCELLED ◀── cancelled: PENDING, RETRYING
//!    └──due── RETRYING ◀──failed
//! ```
//!
//! Each status write of the store is conditional on the state that the writer has read. So of two writers
//! that act on the same state, only one succeeds. A late or repeated event changes nothing and has no effect.

use std::time::Duration;

use crate::config::Environment;
use crate::ports::Timestamp;
use crate::store::{Request, RequestSummary, Status};

/// The state of a request, with the data that decides its next state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The request waits to be claimed.
    Pending(Budget),
    /// An attempt runs the request under a lease.
    Processing(Budget, Hold),
    /// The last attempt failed. The timestamp is the time at which the next attempt is due.
    Retrying(Budget, Timestamp),
    /// Terminal state: the request has a result.
    Completed,
    /// Terminal state: the request failed for good.
    Failed,
    /// Terminal state: the request's user or an operator cancelled the request.
    Cancelled,
}

/// The attempts and continuations that a request has used, and the attempts that it may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Number of attempts used so far; a continuation after a yield does not count again.
    pub used: u32,
    /// Maximum number of attempts.
    pub allowed: u32,
    /// Number of times that the request has continued in a fresh invocation after a yield.
    pub continuations: u32,
}

/// The lease under which a request is run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    /// Time at which the lease expires unless it is renewed.
    pub until: Timestamp,
    /// True if the request's user or an operator has requested a cancel. The attempt must then stop.
    pub cancel_requested: bool,
}

/// An event that may change the state of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A function claims the request under a lease.
    Claimed {
        /// Time at which the new lease expires.
        until: Timestamp,
    },
    /// The attempt's handler returned a result.
    Succeeded,
    /// The attempt failed.
    Failed {
        /// Time at which the next attempt is due; `None` if the failure is final.
        next: Option<Timestamp>,
    },
    /// The attempt yielded: it continues from its checkpoint in a fresh invocation.
    Yielded,
    /// The attempt stopped because a cancel was requested.
    Stopped,
    /// The request's user or an operator requests a cancel.
    CancelRequested,
    /// The request's timer fired, so the sweeper handles the request.
    TimerFired,
}

/// A command that the caller of [`step`] carries out after it has written the next state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Write the pending request again, so that it appears in the table's stream again.
    Nudge,
    /// Move the request's timer, which fired too early, to this time.
    Postpone(Timestamp),
    /// Deliver the terminal frame to every subscriber that does not have it.
    Deliver {
        /// True if the request failed for good. The caller must then also send the request's dead letter,
        /// unless the dead letter was sent earlier.
        dead_letter: bool,
    },
}

/// Time from the expiry of a lease until the sweeper treats the lease as lost: 10 s, because clocks may
/// differ.
pub const LEASE_GRACE: Duration = Duration::from_secs(10);

/// Configurable limits of the request state machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Maximum number of times that a request may continue in a fresh invocation after a yield. Default 100,
    /// which is about a day of 15-minute invocations.
    pub max_continuations: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_continuations: 100 }
    }
}

impl Rules {
    /// Reads `MAX_CONTINUATIONS` from the environment; see [`lambda`](crate::lambda) for its bounds.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let default = Self::default().max_continuations;
        let times = environment.number("MAX_CONTINUATIONS", "times", default.into(), 0..=10_000);
        Self { max_continuations: u32::try_from(times).unwrap_or(default) }
    }
}

/// The result of [`step`]: a request's next state, and the effect to carry out after that state is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The request's next state; it may equal the current state.
    pub state: State,
    /// Command to carry out once the next state is written; `None` if there is no command.
    pub effect: Option<Effect>,
}

/// Returns the next state, and its effect, of a request in `state` when `event` occurs at `now`.
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
        Event::CancelRequested => terminated(State::Cancelled),
        Event::TimerFired => Step { state: State::Pending(budget), effect: Some(Effect::Nudge) },
        Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            without_effect(State::Pending(budget))
        }
    }
}

fn processing(budget: Budget, hold: Hold, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match event {
        Event::Claimed { .. } => without_effect(State::Processing(budget, hold)),
        Event::Succeeded => terminated(State::Completed),
        Event::Stopped => terminated(State::Cancelled),
        Event::Failed { .. } | Event::Yielded if hold.cancel_requested => terminated(State::Cancelled),
        Event::Failed { next: Some(due) } if budget.used < budget.allowed => {
            without_effect(State::Retrying(budget, due))
        }
        Event::Failed { .. } => terminated(State::Failed),
        Event::Yielded if budget.continuations < rules.max_continuations => {
            let Budget { used, allowed, continuations } = budget;
            let budget = Budget { used: used.saturating_sub(1), allowed, continuations: continuations + 1 };
            without_effect(State::Pending(budget))
        }
        Event::Yielded => terminated(State::Failed),
        Event::CancelRequested => {
            without_effect(State::Processing(budget, Hold { cancel_requested: true, ..hold }))
        }
        Event::TimerFired => {
            let lost_at = hold.until + LEASE_GRACE;
            if now < lost_at {
                Step { state: State::Processing(budget, hold), effect: Some(Effect::Postpone(lost_at)) }
            } else if hold.cancel_requested {
                terminated(State::Cancelled)
            } else {
                pending_or_failed(budget)
            }
        }
    }
}

fn retrying(budget: Budget, due: Timestamp, event: Event, now: Timestamp) -> Step {
    match event {
        Event::Claimed { until } if due <= now && budget.used < budget.allowed => claimed(budget, until),
        Event::CancelRequested => terminated(State::Cancelled),
        Event::TimerFired if now < due => {
            Step { state: State::Retrying(budget, due), effect: Some(Effect::Postpone(due)) }
        }
        Event::TimerFired => pending_or_failed(budget),
        Event::Claimed { .. } | Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            without_effect(State::Retrying(budget, due))
        }
    }
}

/// Returns the step of a terminal state, which never changes. Its timer fires again until the delivery is
/// complete.
fn terminal(state: State, event: Event) -> Step {
    match event {
        Event::TimerFired => terminated(state),
        Event::Claimed { .. }
        | Event::Succeeded
        | Event::Failed { .. }
        | Event::Yielded
        | Event::Stopped
        | Event::CancelRequested => without_effect(state),
    }
}

fn claimed(budget: Budget, until: Timestamp) -> Step {
    let budget = Budget { used: budget.used + 1, ..budget };
    without_effect(State::Processing(budget, Hold { until, cancel_requested: false }))
}

fn pending_or_failed(budget: Budget) -> Step {
    if budget.used < budget.allowed {
        without_effect(State::Pending(budget))
    } else {
        terminated(State::Failed)
    }
}

/// Returns `state` as the next state, without an effect.
///
/// The write of an open state needs no effect: the write itself appears in the stream and sets the timer.
const fn without_effect(state: State) -> Step {
    Step { state, effect: None }
}

/// Returns a terminal state as the next state, with the delivery of its terminal frame as the effect.
const fn terminated(state: State) -> Step {
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
            // Every write of PROCESSING stores a lease. An item without a lease is treated as if its lease had
            // expired.
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
    /// Returns the PROCESSING state of a request that was just claimed under a lease that expires at `until`.
    #[must_use]
    pub fn held(request: &Request, until: Timestamp) -> Self {
        let budget = Budget {
            used: request.attempt,
            allowed: request.max_attempts,
            continuations: request.continuations,
        };
        Self::Processing(budget, Hold { until, cancel_requested: request.cancel_requested })
    }

    /// Returns the status under which this state is stored.
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
