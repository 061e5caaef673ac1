//! How an attempt ended.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinError;

use crate::handler::{RetryPolicy, Verdict};
use crate::ids::RequestKey;
use crate::lifecycle::{Event, Rules};
use crate::middleware::{CallError, Reply};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::{AttemptOutcome, Runner};
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
    error: ErrorBody,
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
        Self::Failed(Failure { error: error.into_told(), outcome, again, runner: None })
    }

    /// What has come of a handler whose invocation ends: the next attempt has one of its own, which one that shared its
    /// first with others always gets.
    pub(super) fn out_of_time(policy: &RetryPolicy, runner: Runner) -> Self {
        Self::Failed(Failure {
            error: ErrorBody::new(ErrorCode::Timeout, "The request took longer than one invocation may"),
            outcome: AttemptOutcome::TimedOut,
            again: Again::if_so(policy.retries_timeouts || runner == Runner::Processor),
            runner: Some(Runner::Worker),
        })
    }

    /// A result that is larger than the store can hold.
    pub(super) fn too_large() -> Self {
        let problem = "The result is larger than can be stored";
        Self::Failed(Failure::for_good(ErrorBody::new(ErrorCode::PayloadTooLarge, problem)))
    }

    /// What it is to the state machine, after that many attempts.
    pub(super) fn event(&self, policy: &RetryPolicy, attempt: u32, chance: f64, now: Timestamp) -> Event {
        match self {
            Self::Succeeded(_) => Event::Succeeded,
            Self::Yielded => Event::Yielded,
            Self::Stopped => Event::Stopped,
            Self::Failed(failure) => Event::Failed { next: failure.next(policy, attempt, chance, now) },
        }
    }

    /// What its client and its history are told where the request fails, or waits for another attempt.
    pub(super) fn error(&self, rules: &Rules) -> (AttemptOutcome, ErrorBody) {
        match self {
            Self::Failed(failure) => (failure.outcome, failure.error.clone()),
            Self::Yielded => {
                let problem = format!("The request took longer than {} invocations", rules.max_continuations);
                (AttemptOutcome::TimedOut, ErrorBody::new(ErrorCode::Timeout, problem))
            }
            Self::Succeeded(_) | Self::Stopped => (AttemptOutcome::Failed, ErrorBody::processing_failed()),
        }
    }

    /// Who makes the next attempt, where it is another than before.
    pub(super) const fn runner(&self) -> Option<Runner> {
        match self {
            Self::Failed(failure) => failure.runner,
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => None,
        }
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
    pub(super) const fn for_good(error: ErrorBody) -> Self {
        Self { error, outcome: AttemptOutcome::Failed, again: Again::Never, runner: None }
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
