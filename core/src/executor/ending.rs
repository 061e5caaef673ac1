//! Decides and writes the last write of an attempt: a terminal status, a retry, or a yield.

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

/// Wait before the last write of an attempt is retried.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The last write of an attempt, which ends the attempt.
#[derive(Debug)]
pub(super) enum AttemptEnding {
    /// The request becomes terminal. The second field is the attempt history to store; an empty history leaves
    /// the stored history unchanged.
    Terminal(Ending, Vec<PastAttempt>),
    /// The request waits until `due` for its next attempt, which the function `runner` makes.
    Retry { due: Timestamp, runner: Runner, history: Vec<PastAttempt> },
    /// The request continues from its checkpoint in a fresh invocation.
    Yield,
}

/// Inputs of the decision about an attempt's last write, except the attempt's outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'r> {
    pub(super) request: &'r Request,
    pub(super) lease: &'r Lease,
    pub(super) policy: &'r RetryPolicy,
    pub(super) rules: &'r Rules,
    /// Random factor from 0 to 1 that scales the policy's longest retry wait.
    pub(super) jitter: f64,
    pub(super) now: Timestamp,
}

impl AttemptEnding {
    /// Returns the last write that the state machine prescribes after `outcome`, and the effect that follows
    /// the write.
    pub(super) fn after(outcome: &Outcome, circumstances: Circumstances<'_>) -> (Self, Option<Effect>) {
        let Circumstances { request, lease, policy, rules, jitter, now } = circumstances;
        let held = State::held(request, lease.expires_at);
        let event = outcome.event(policy, request.attempt, jitter, now);
        let Step { state, effect } = step(held, event, now, rules);
        let ending = match state {
            State::Completed => match outcome {
                Outcome::Succeeded(result) => Self::Terminal(Ending::Completed(result.clone()), Vec::new()),
                Outcome::Yielded | Outcome::Stopped | Outcome::Failed(_) => {
                    unreachable!("only a handler's result leads to COMPLETED")
                }
            },
            State::Cancelled => Self::cancelled(),
            State::Failed => {
                let (attempt_outcome, error) = outcome.error(rules);
                let history = extended_history(request, lease, attempt_outcome, error.clone(), now);
                Self::Terminal(Ending::Failed(error), history)
            }
            State::Retrying(_, due) => {
                let (attempt_outcome, error) = outcome.error(rules);
                let history = extended_history(request, lease, attempt_outcome, error, now);
                Self::Retry { due, runner: outcome.runner().unwrap_or(request.runner), history }
            }
            State::Pending(_) => Self::Yield,
            State::Processing(..) => unreachable!("every outcome of an attempt leads out of PROCESSING"),
        };
        (ending, effect)
    }

    /// Returns the terminal write of a request whose stored values cannot be read.
    ///
    /// The stored history cannot be read either, so the write leaves the history unchanged.
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
                let error = ErrorBody::new(ErrorCode::InternalError, "The stored request cannot be read");
                Self::Terminal(Ending::Failed(error), Vec::new())
            }
            State::Pending(_) | State::Processing(..) | State::Retrying(..) | State::Completed => {
                unreachable!("a failure without a next attempt leads to FAILED or CANCELLED")
            }
        }
    }

    const fn cancelled() -> Self {
        Self::Terminal(Ending::Cancelled, Vec::new())
    }

    pub(super) const fn is_terminal(&self) -> bool {
        match self {
            Self::Terminal(..) => true,
            Self::Retry { .. } | Self::Yield => false,
        }
    }
}

/// Returns the request's attempt history with this attempt appended.
fn extended_history(
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

/// Makes the last write of an attempt. Retries until the write succeeds or fails with an error that is not
/// transient.
///
/// A retry is safe even if it arrives late, because the write is conditional on the epoch.
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
            AttemptEnding::Terminal(Ending::Completed(result), _) => {
                queue.complete(key, lease, result, last).await
            }
            AttemptEnding::Terminal(Ending::Failed(error), history) => {
                queue.fail(key, lease, error, history, last).await
            }
            AttemptEnding::Terminal(Ending::Cancelled, _) => queue.confirm_cancel(key, lease, last).await,
            AttemptEnding::Retry { due, runner, history } => {
                queue.retry_later(key, lease, history, *due, *runner, last).await
            }
            AttemptEnding::Yield => queue.continue_later(key, lease, last).await,
        };
        match written {
            Err(error) if error.is_transient() => {
                tracing::warn!(request = %key, error = %Causes(&error), "outcome write failed; retrying");
                sleep(RETRY_INTERVAL).await;
            }
            done => return done,
        }
    }
}
