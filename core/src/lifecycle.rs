//! What becomes of a request, as a pure function: a state, an event and a moment make the next state, and what is to be
//! done about it.
//!
//! ```text
//! PENDING ──claimed──▶ PROCESSING ──succeeded──▶ COMPLETED
//!    ▲                    │  │ ├────failed for good──▶ FAILED
//!    ├──yielded, crashed──┘  │ └────stopped──▶ CANCELLED ◀── cancelled: PENDING, RETRYING
//!    └──due── RETRYING ◀──failed
//! ```
//!
//! The store's conditions are the same rules, write by write: two who act at once on what they have seen cannot both
//! succeed. An event that comes too late, or twice, changes nothing and has no effect.

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

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Run it: it is ours.
    Run,
    /// Have it appear in the table's stream, for a processor to take up.
    Announce,
    /// Ask whoever holds it to stop.
    AskHolder,
    /// Send the terminal frame to everyone who listens and does not have it.
    Tell,
    /// Send its dead letter, unless it was sent.
    SendDeadLetter,
    /// Look at it again then.
    LookAt(Timestamp),
}

/// What the rules leave to settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How often a request may go on in a fresh invocation. Default 100, which is a day of 15-minute invocations.
    pub max_continuations: u32,
    /// How long after its end a lease is taken for lost, to allow for clocks that differ. Default 10 s.
    pub lease_grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_continuations: 100, lease_grace: Duration::from_secs(10) }
    }
}

impl Rules {
    /// Reads `MAX_CONTINUATIONS`, as [`lambda`](crate::lambda) has it.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        let default = defaults.max_continuations;
        let times = environment.number("MAX_CONTINUATIONS", "times", default.into(), 0..=10_000);
        Self { max_continuations: u32::try_from(times).unwrap_or(default), ..defaults }
    }
}

/// What an event makes of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Where it stands now.
    pub state: State,
    /// What is to be done, in this order.
    pub effects: Vec<Effect>,
}

/// What `event` at `now` makes of a request that stands as `state` says.
#[must_use]
pub fn step(state: State, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match state {
        State::Pending(budget) => pending(budget, event, rules),
        State::Processing(budget, hold) => processing(budget, hold, event, now, rules),
        State::Retrying(budget, due) => retrying(budget, due, event, now, rules),
        State::Completed | State::Cancelled => ended(state, event, &[Effect::Tell]),
        State::Failed => ended(state, event, &[Effect::Tell, Effect::SendDeadLetter]),
    }
}

fn pending(budget: Budget, event: Event, rules: &Rules) -> Step {
    match event {
        Event::Claimed { until } => claimed(budget, until, rules),
        Event::CancelAsked => cancelled(),
        Event::TimerFired => Step { state: State::Pending(budget), effects: vec![Effect::Announce] },
        Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            unchanged(State::Pending(budget))
        }
    }
}

fn processing(budget: Budget, hold: Hold, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match event {
        Event::Claimed { .. } => unchanged(State::Processing(budget, hold)),
        Event::Succeeded => Step { state: State::Completed, effects: vec![Effect::Tell] },
        Event::Stopped => cancelled(),
        Event::Failed { .. } | Event::Yielded if hold.cancel_requested => cancelled(),
        Event::Failed { next: Some(due) } if budget.used < budget.allowed => {
            Step { state: State::Retrying(budget, due), effects: vec![Effect::LookAt(due)] }
        }
        Event::Failed { .. } => failed(),
        Event::Yielded if budget.continuations < rules.max_continuations => {
            let Budget { used, allowed, continuations } = budget;
            announced(Budget { used: used.saturating_sub(1), allowed, continuations: continuations + 1 })
        }
        Event::Yielded => failed(),
        Event::CancelAsked => Step {
            state: State::Processing(budget, Hold { cancel_requested: true, ..hold }),
            effects: vec![Effect::AskHolder],
        },
        Event::TimerFired => {
            let lost_at = hold.until + rules.lease_grace;
            if now < lost_at {
                Step { state: State::Processing(budget, hold), effects: vec![Effect::LookAt(lost_at)] }
            } else if hold.cancel_requested {
                cancelled()
            } else {
                again_or_failed(budget)
            }
        }
    }
}

fn retrying(budget: Budget, due: Timestamp, event: Event, now: Timestamp, rules: &Rules) -> Step {
    match event {
        Event::Claimed { until } if due <= now && budget.used < budget.allowed => {
            claimed(budget, until, rules)
        }
        Event::CancelAsked => cancelled(),
        Event::TimerFired if now < due => {
            Step { state: State::Retrying(budget, due), effects: vec![Effect::LookAt(due)] }
        }
        Event::TimerFired => again_or_failed(budget),
        Event::Claimed { .. } | Event::Succeeded | Event::Failed { .. } | Event::Yielded | Event::Stopped => {
            unchanged(State::Retrying(budget, due))
        }
    }
}

/// A terminal state never changes: all that is left is to tell it.
fn ended(state: State, event: Event, telling: &[Effect]) -> Step {
    match event {
        Event::TimerFired => Step { state, effects: telling.to_vec() },
        Event::Claimed { .. }
        | Event::Succeeded
        | Event::Failed { .. }
        | Event::Yielded
        | Event::Stopped
        | Event::CancelAsked => unchanged(state),
    }
}

fn claimed(budget: Budget, until: Timestamp, rules: &Rules) -> Step {
    Step {
        state: State::Processing(
            Budget { used: budget.used + 1, ..budget },
            Hold { until, cancel_requested: false },
        ),
        effects: vec![Effect::LookAt(until + rules.lease_grace), Effect::Run],
    }
}

fn again_or_failed(budget: Budget) -> Step {
    if budget.used < budget.allowed { announced(budget) } else { failed() }
}

fn announced(budget: Budget) -> Step {
    Step { state: State::Pending(budget), effects: vec![Effect::Announce] }
}

fn cancelled() -> Step {
    Step { state: State::Cancelled, effects: vec![Effect::Tell] }
}

fn failed() -> Step {
    Step { state: State::Failed, effects: vec![Effect::Tell, Effect::SendDeadLetter] }
}

fn unchanged(state: State) -> Step {
    Step { state, effects: Vec::new() }
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
