//! What is written when an attempt has ended.

use std::time::Duration;

use tokio::time::sleep;

use super::Executor;
use super::outcome::Outcome;
use crate::handler::RetryPolicy;
use crate::ids::RequestKey;
use crate::lifecycle::{Budget, Effect, Event, Hold, Rules, State, Step, step};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::{
    AttemptOutcome, Audience, Ending, LastReport, Lease, PastAttempt, Request, RequestQueue, Runner,
    StoreError,
};
use crate::telemetry::Causes;

/// How long to wait between two tries to write.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The last write of an attempt.
#[derive(Debug)]
pub(super) enum AttemptEnding {
    /// The request has ended, after the attempts of this history, if it failed.
    Ended(Ending, Vec<PastAttempt>),
    /// The request waits for its next attempt.
    Retried { due: Timestamp, runner: Runner, history: Vec<PastAttempt> },
    /// The request goes on in a fresh invocation.
    Continued,
}

/// What an ending depends on, beside the attempt's outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'r> {
    pub(super) request: &'r Request,
    pub(super) lease: &'r Lease,
    pub(super) policy: &'r RetryPolicy,
    pub(super) rules: &'r Rules,
    /// From 0 to 1: how much of the longest wait is waited.
    pub(super) chance: f64,
    pub(super) now: Timestamp,
}

impl AttemptEnding {
    /// The write of the state that the rules lead to after this outcome, and the effect that follows the write.
    pub(super) fn after(outcome: &Outcome, circumstances: Circumstances<'_>) -> (Self, Option<Effect>) {
        let Circumstances { request, lease, policy, rules, chance, now } = circumstances;
        let held = State::held(request, lease.expires_at);
        let event = outcome.event(policy, request.attempt, chance, now);
        let Step { state, effect } = step(held, event, now, rules);
        let ending = match state {
            State::Completed => match outcome {
                Outcome::Succeeded(result) => Self::Ended(Ending::Completed(result.clone()), Vec::new()),
                Outcome::Yielded | Outcome::Stopped | Outcome::Failed(_) => {
                    unreachable!("only a result completes a request")
                }
            },
            State::Cancelled => Self::cancelled(),
            State::Failed => {
                let (how, error) = outcome.error(rules);
                let history = past(request, lease, how, error.clone(), now);
                Self::Ended(Ending::Failed(error), history)
            }
            State::Retrying(_, due) => {
                let (how, error) = outcome.error(rules);
                let history = past(request, lease, how, error, now);
                Self::Retried { due, runner: outcome.runner().unwrap_or(request.runner), history }
            }
            State::Pending(_) => Self::Continued,
            State::Processing(..) => unreachable!("an attempt that has ended leaves PROCESSING"),
        };
        (ending, effect)
    }

    /// The ending of a request that nobody can read. Its history, which nobody can read either, stays as it is.
    pub(super) fn of_unreadable(
        lease: &Lease,
        cancel_requested: bool,
        now: Timestamp,
        rules: &Rules,
    ) -> Self {
        let unknown = Budget { used: 0, allowed: 0, continuations: 0 };
        let held = State::Processing(unknown, Hold { until: lease.expires_at, cancel_requested });
        match step(held, Event::Failed { next: None }, now, rules).state {
            State::Cancelled => Self::cancelled(),
            State::Failed => {
                let error = ErrorBody::new(ErrorCode::InternalError, "The request can no longer be read");
                Self::Ended(Ending::Failed(error), Vec::new())
            }
            State::Pending(_) | State::Processing(..) | State::Retrying(..) | State::Completed => {
                unreachable!("what fails for good ends without a result")
            }
        }
    }

    const fn cancelled() -> Self {
        Self::Ended(Ending::Cancelled, Vec::new())
    }

    pub(super) const fn is_terminal(&self) -> bool {
        match self {
            Self::Ended(..) => true,
            Self::Retried { .. } | Self::Continued => false,
        }
    }
}

/// The history of a request with this attempt in it.
fn past(
    request: &Request,
    lease: &Lease,
    outcome: AttemptOutcome,
    error: ErrorBody,
    now: Timestamp,
) -> Vec<PastAttempt> {
    let attempt = PastAttempt {
        attempt: request.attempt,
        epoch: lease.epoch,
        started_at: request.started_at,
        ended_at: now,
        outcome,
        error,
    };
    attempt.added_to(&request.history)
}

/// Writes an attempt's ending, again and again until it is stored: it is what the client was promised, and
/// conditional on the epoch, so that it can do no harm however late it comes.
pub(super) async fn write_ending<Q: RequestQueue, P, D>(
    executor: &Executor<Q, P, D>,
    key: &RequestKey,
    lease: &Lease,
    ending: &AttemptEnding,
    last: &LastReport,
) -> Result<Audience, StoreError> {
    let queue = &executor.queue;
    loop {
        let written = match ending {
            AttemptEnding::Ended(Ending::Completed(result), _) => {
                queue.complete(key, lease, result, last).await
            }
            AttemptEnding::Ended(Ending::Failed(error), history) => {
                queue.fail(key, lease, error, history, last).await
            }
            AttemptEnding::Ended(Ending::Cancelled, _) => queue.confirm_cancel(key, lease, last).await,
            AttemptEnding::Retried { due, runner, history } => {
                queue.retry_later(key, lease, history, *due, *runner, last).await
            }
            AttemptEnding::Continued => queue.continue_later(key, lease, last).await,
        };
        match written {
            Err(error) if error.is_transient() => {
                tracing::warn!(request = %key, error = %Causes(&error), "what becomes of it is not stored yet");
                sleep(RETRY_INTERVAL).await;
            }
            done => return done,
        }
    }
}
