//! The outcome of an attempt: success, yield, stop or failure.

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

/// Result of a handler's task; the outer error means that the task panicked.
pub(super) type HandlerResult = Result<Result<Reply, CallError>, JoinError>;

/// The outcome of an attempt, which decides the attempt's last write.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The handler returned this result.
    Succeeded(Value),
    /// The handler yielded: the request continues from its checkpoint in a fresh invocation.
    Yielded,
    /// The attempt stopped because the request's user or an operator requested a cancel.
    Stopped,
    /// The attempt failed, timed out or panicked.
    Failed(Failure),
}

/// Details of a failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// The error that the client receives if the request fails.
    error: ErrorBody,
    outcome: AttemptOutcome,
    retry: Retry,
    /// The function that makes the next attempt; `None` keeps the request's current runner.
    runner: Option<Runner>,
}

/// Whether a failed attempt may be retried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Retry {
    Never,
    /// Retry after the policy's wait, but not before this duration has passed.
    After(Duration),
}

impl Retry {
    const fn allowed_if(is_allowed: bool) -> Self {
        if is_allowed { Self::After(Duration::ZERO) } else { Self::Never }
    }
}

impl Outcome {
    /// Returns the outcome of a handler that finished by itself. A yield without a checkpoint counts as a
    /// failure.
    pub(super) fn of(
        result: HandlerResult,
        has_checkpoint: bool,
        policy: &RetryPolicy,
        key: &RequestKey,
    ) -> Self {
        let error = match result {
            Ok(Ok(Reply::Done(output))) => return Self::Succeeded(output),
            Ok(Ok(decision @ (Reply::Queue { .. } | Reply::BuiltIn))) => {
                tracing::error!(
                    request = %key, ?decision,
                    "middleware returned a reply that only the router supports"
                );
                return Self::Failed(Failure::for_good(ErrorBody::processing_failed()));
            }
            Err(error) => {
                tracing::error!(request = %key, %error, "handler or middleware panicked");
                return Self::Failed(Failure {
                    outcome: AttemptOutcome::Panicked,
                    retry: Retry::allowed_if(policy.retries_panics),
                    ..Failure::for_good(ErrorBody::processing_failed())
                });
            }
            Ok(Err(error)) => error,
        };
        let (outcome, retry) = match error.verdict() {
            Verdict::Yielded if has_checkpoint => return Self::Yielded,
            Verdict::Yielded => {
                tracing::error!(request = %key, "handler yielded without a checkpoint; attempt fails");
                (AttemptOutcome::Failed, Retry::After(Duration::ZERO))
            }
            Verdict::Final => (AttemptOutcome::Failed, Retry::Never),
            Verdict::Retryable(after) => (AttemptOutcome::Failed, Retry::After(after.unwrap_or_default())),
            Verdict::TimedOut => (AttemptOutcome::TimedOut, Retry::allowed_if(policy.retries_timeouts)),
        };
        if error.is_unexpected() {
            tracing::warn!(request = %key, error = %Causes(&error), "attempt failed");
        } else {
            tracing::debug!(request = %key, %error, "attempt failed");
        }
        Self::Failed(Failure { error: error.into_client_error(), outcome, retry, runner: None })
    }

    /// Returns the outcome of a handler that was stopped because its invocation ends. The worker makes the next
    /// attempt.
    ///
    /// An attempt in the processor may be retried even if the policy does not retry timeouts, because the
    /// attempt shared its invocation with other requests.
    pub(super) fn out_of_time(policy: &RetryPolicy, runner: Runner) -> Self {
        Self::Failed(Failure {
            error: ErrorBody::new(ErrorCode::Timeout, "The request took longer than one invocation allows"),
            outcome: AttemptOutcome::TimedOut,
            retry: Retry::allowed_if(policy.retries_timeouts || runner == Runner::Processor),
            runner: Some(Runner::Worker),
        })
    }

    /// Returns the outcome of an attempt whose result is too large for the store.
    pub(super) fn too_large() -> Self {
        let problem = "The result is too large to store";
        Self::Failed(Failure::for_good(ErrorBody::new(ErrorCode::PayloadTooLarge, problem)))
    }

    /// Returns this outcome as an event of the state machine. `attempt` is the attempt's number, counted from
    /// 1, and `jitter` scales the retry wait.
    pub(super) fn event(&self, policy: &RetryPolicy, attempt: u32, jitter: f64, now: Timestamp) -> Event {
        match self {
            Self::Succeeded(_) => Event::Succeeded,
            Self::Yielded => Event::Yielded,
            Self::Stopped => Event::Stopped,
            Self::Failed(failure) => Event::Failed { next: failure.next(policy, attempt, jitter, now) },
        }
    }

    /// Returns the attempt's outcome for the attempt history, and the error for the client. Called only if the
    /// request fails or is retried.
    pub(super) fn error(&self, rules: &Rules) -> (AttemptOutcome, ErrorBody) {
        match self {
            Self::Failed(failure) => (failure.outcome, failure.error.clone()),
            Self::Yielded => {
                let problem =
                    format!("The request did not finish within {} continuations", rules.max_continuations);
                (AttemptOutcome::TimedOut, ErrorBody::new(ErrorCode::Timeout, problem))
            }
            Self::Succeeded(_) | Self::Stopped => (AttemptOutcome::Failed, ErrorBody::processing_failed()),
        }
    }

    /// Returns the function that makes the next attempt; `None` keeps the request's current runner.
    pub(super) const fn runner(&self) -> Option<Runner> {
        match self {
            Self::Failed(failure) => failure.runner,
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => None,
        }
    }

    /// Returns whether the attempt failed with an error that is never retried.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Failed(failure) => {
                failure.outcome == AttemptOutcome::Failed && failure.retry == Retry::Never
            }
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => false,
        }
    }

    /// Returns whether the attempt timed out.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.outcome == AttemptOutcome::TimedOut,
            Self::Succeeded(_) | Self::Yielded | Self::Stopped => false,
        }
    }
}

impl Failure {
    /// Returns a failure that is never retried.
    pub(super) const fn for_good(error: ErrorBody) -> Self {
        Self { error, outcome: AttemptOutcome::Failed, retry: Retry::Never, runner: None }
    }

    /// Returns the time at which the next attempt is due; `None` if the failure is never retried.
    fn next(&self, policy: &RetryPolicy, attempt: u32, jitter: f64, now: Timestamp) -> Option<Timestamp> {
        match self.retry {
            Retry::Never => None,
            // The wait that a handler asks for is capped, so that every request finishes within a bounded time.
            Retry::After(least) => {
                Some(now + policy.wait_after(attempt, jitter).max(least.min(RetryPolicy::MAX_CAP)))
            }
        }
    }
}
