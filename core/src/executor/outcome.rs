//! What has come of a handler, and what becomes of its request then.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinError;

use crate::handler::{RetryPolicy, Verdict};
use crate::ids::RequestKey;
use crate::lifecycle::{Event, Rules, State, step};
use crate::middleware::{CallError, Reply};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::{AttemptOutcome, Ending, Lease, PastAttempt, Request, Runner};
use crate::telemetry::Causes;

/// How a handler's task has ended; an error is a panic.
pub(super) type HandlerEnd = Result<Result<Reply, CallError>, JoinError>;

/// What has come of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has a result.
    Succeeded(Value),
    /// It goes on from its checkpoint in a fresh invocation.
    Yielded,
    /// It has stopped, as its user or an operator wanted.
    Stopped,
    /// It has failed.
    Failed(Failure),
}

/// An attempt that has failed.
#[derive(Debug)]
pub(super) struct Failure {
    told: ErrorBody,
    outcome: AttemptOutcome,
    again: Again,
    /// Who makes the next attempt, where it is another than before.
    runner: Option<Runner>,
}

/// Whether another attempt is worth it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Again {
    Never,
    /// Once the policy's wait is over, but not before this one is.
    After(Duration),
}

impl Again {
    const fn if_so(policy_says_so: bool) -> Self {
        if policy_says_so { Self::After(Duration::ZERO) } else { Self::Never }
    }
}

impl Outcome {
    /// What has come of a handler that ended by itself. A handler that wants to go on later needs a checkpoint to go on from.
    pub(super) fn of(
        ended: HandlerEnd,
        has_checkpoint: bool,
        policy: &RetryPolicy,
        key: &RequestKey,
    ) -> Self {
        let error = match ended {
            Ok(Ok(Reply::Done(output))) => return Self::Succeeded(output),
            Ok(Ok(decision @ (Reply::Queue { .. } | Reply::BuiltIn))) => {
                tracing::error!(request = %key, ?decision, "a layer has decided what is for the router alone");
                return Self::Failed(Failure::for_good(ErrorBody::processing_failed()));
            }
            Err(error) => {
                tracing::error!(request = %key, %error, "the handler or a layer panicked");
                return Self::Failed(Failure {
                    outcome: AttemptOutcome::Panicked,
                    again: Again::if_so(policy.retries_panics),
                    ..Failure::for_good(ErrorBody::processing_failed())
                });
            }
            Ok(Err(error)) => error,
        };
        let (outcome, again) = match error.verdict() {
            Verdict::Yielded if has_checkpoint => return Self::Yielded,
            Verdict::Yielded => {
                tracing::error!(request = %key, "the handler wants to go on later, and has saved no checkpoint");
                (AttemptOutcome::Failed, Again::After(Duration::ZERO))
            }
            Verdict::Final => (AttemptOutcome::Failed, Again::Never),
            Verdict::Retryable(after) => (AttemptOutcome::Failed, Again::After(after.unwrap_or_default())),
            Verdict::TimedOut => (AttemptOutcome::TimedOut, Again::if_so(policy.retries_timeouts)),
        };
        if error.is_unexpected() {
            tracing::warn!(request = %key, error = %Causes(&error), "the attempt failed");
        } else {
            tracing::debug!(request = %key, %error, "the attempt failed");
        }
        Self::Failed(Failure { told: error.into_told(), outcome, again, runner: None })
    }

    /// What has come of a handler whose invocation ends: the next attempt has one of its own, which one that shared its
    /// first with others always gets.
    pub(super) fn out_of_time(policy: &RetryPolicy, runner: Runner) -> Self {
        Self::Failed(Failure {
            told: ErrorBody::new(ErrorCode::Timeout, "The request took longer than one invocation may"),
            outcome: AttemptOutcome::TimedOut,
            again: Again::if_so(policy.retries_timeouts || runner == Runner::Processor),
            runner: Some(Runner::Worker),
        })
    }

    /// Whether its handler says that another attempt would not mend it.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Failed(failure) => {
                failure.outcome == AttemptOutcome::Failed && failure.again == Again::Never
            }
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => false,
        }
    }

    /// Whether it took longer than it may.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.outcome == AttemptOutcome::TimedOut,
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => false,
        }
    }
}

impl Failure {
    /// A failure that another attempt would not mend.
    pub(super) const fn for_good(told: ErrorBody) -> Self {
        Self { told, outcome: AttemptOutcome::Failed, again: Again::Never, runner: None }
    }

    /// When the next attempt would be due.
    fn next(&self, policy: &RetryPolicy, attempt: u32, chance: f64, now: Timestamp) -> Option<Timestamp> {
        match self.again {
            Again::Never => None,
            // Whatever a handler asks for, a request ends within a bounded time.
            Again::After(least) => {
                Some(now + policy.wait_after(attempt, chance).max(least.min(RetryPolicy::MAX_CAP)))
            }
        }
    }
}

/// How a request leaves an attempt.
#[derive(Debug)]
pub(super) enum Parting {
    /// It has ended, after the attempts of this history, if it failed.
    Ended(Ending, Vec<PastAttempt>),
    /// It waits for its next attempt.
    Retried { due: Timestamp, runner: Runner, history: Vec<PastAttempt> },
    /// It goes on in a fresh invocation.
    Continued,
}

/// What a parting hangs on, beside what has come of the attempt.
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

impl Parting {
    /// What becomes of a request after an attempt with this outcome.
    pub(super) fn after(outcome: Outcome, circumstances: Circumstances<'_>) -> Self {
        let Circumstances { request, lease, policy, rules, chance, now } = circumstances;
        let event = match &outcome {
            Outcome::Succeeded(_) => Event::Succeeded,
            Outcome::Yielded => Event::Yielded,
            Outcome::Stopped => Event::Stopped,
            Outcome::Failed(failure) => {
                Event::Failed { next: failure.next(policy, request.attempt, chance, now) }
            }
        };
        let held = State::held(request, lease.expires_at);
        match (step(held, event, now, rules).state, outcome) {
            (State::Completed, Outcome::Succeeded(result)) => {
                Self::Ended(Ending::Completed(result), Vec::new())
            }
            (State::Cancelled, _) => Self::cancelled(),
            (State::Pending(_), _) => Self::Continued,
            (State::Retrying(_, due), Outcome::Failed(failure)) => Self::Retried {
                due,
                runner: failure.runner.unwrap_or(request.runner),
                history: past(request, lease, failure.outcome, failure.told, now),
            },
            (_, Outcome::Failed(failure)) => {
                let history = past(request, lease, failure.outcome, failure.told.clone(), now);
                Self::Ended(Ending::Failed(failure.told), history)
            }
            (_, Outcome::Yielded) => {
                let problem = format!("The request took longer than {} invocations", rules.max_continuations);
                let told = ErrorBody::new(ErrorCode::Timeout, problem);
                let history = past(request, lease, AttemptOutcome::TimedOut, told.clone(), now);
                Self::Ended(Ending::Failed(told), history)
            }
            (_, Outcome::Succeeded(_) | Outcome::Stopped) => {
                unreachable!("what is run and succeeds is completed, and what is run and stops is cancelled")
            }
        }
    }

    /// The end that was asked for.
    pub(super) const fn cancelled() -> Self {
        Self::Ended(Ending::Cancelled, Vec::new())
    }

    /// The end of a request whose own end the store cannot hold.
    pub(super) fn too_large(request: &Request, lease: &Lease, now: Timestamp) -> Self {
        let told = ErrorBody::new(ErrorCode::PayloadTooLarge, "The result is larger than can be stored");
        let history = past(request, lease, AttemptOutcome::Failed, told.clone(), now);
        Self::Ended(Ending::Failed(told), history)
    }

    pub(super) const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Ended(Ending::Cancelled, _))
    }

    pub(super) const fn is_end(&self) -> bool {
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
