//! Answers a call of SQS, with fault injection.

use std::future::pending;

use super::api;
use super::error::ApiError;
use super::queues::Queues;
use super::response::Response;
use super::state::name_in;
use crate::destination::{Destination, NoDestination};
use crate::faults::{CallContext, Caller, Effect, Effects, Service};

/// Prefix of the header `x-amz-target` in every call of SQS.
pub(super) const TARGET: &str = "AmazonSQS.";

impl Queues {
    /// Answers one call, with fault injection; `None` if a fault drops the answer. `target` is the header
    /// `x-amz-target`.
    pub(super) async fn call(
        &self,
        target: &str,
        body: &[u8],
        origin: &str,
        caller: Option<&Caller>,
    ) -> Option<Response> {
        let Some(operation) = target.strip_prefix(TARGET) else {
            return Some(ApiError::unknown_operation().into_response());
        };
        let queue = api::queue_of(body);
        let queue = queue.as_deref();
        let possible = |effect: Effect| effect.applies_to_any_call(caller);
        let effects = self.inject(operation, queue, caller.map(Caller::function), possible);
        if !effects.delay.is_zero() {
            tokio::time::sleep(effects.delay).await;
        }
        let answer = match effects.effect {
            Some(Effect::Throttle) => Err(ApiError::throttled()),
            Some(Effect::Fail) => Err(injected_failure()),
            Some(Effect::FailAfterApply) => {
                self.answer(operation, body, origin).await.and_then(|_| Err(injected_failure()))
            }
            Some(Effect::LoseAnswer) => {
                // The fault drops the answer, whether success or error.
                let _ = self.answer(operation, body, origin).await;
                return None;
            }
            Some(Effect::Kill) => {
                caller.into_iter().for_each(Caller::kill);
                pending().await
            }
            Some(_) | None => self.answer(operation, body, origin).await,
        };
        Some(match answer {
            Ok(body) => Response { status: 200, body: body.to_string().into(), query_error: None },
            Err(error) => error.into_response(),
        })
    }

    fn inject(
        &self,
        operation: &str,
        queue: Option<&str>,
        caller: Option<&str>,
        possible: impl Fn(Effect) -> bool,
    ) -> Effects {
        let resources = queue.as_slice();
        let context = CallContext { service: Service::Sqs, operation, resources, index: None, caller };
        self.faults.inject(&context, possible)
    }
}

fn injected_failure() -> ApiError {
    ApiError::internal("The request processing has failed because of an injected fault.")
}

impl Destination for Queues {
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination> {
        let none = || NoDestination(arn.to_owned());
        if arn.split(':').nth(2) != Some("sqs") || self.arn(name_in(arn)) != arn {
            return Err(none());
        }
        // Lambda sends to a destination without waiting, so faults that delay or drop an answer do not apply.
        let possible = |effect| matches!(effect, Effect::Throttle | Effect::Fail | Effect::FailAfterApply);
        let effect = self.inject("SendMessage", Some(name_in(arn)), None, possible).effect;
        let sent = match effect {
            Some(Effect::Throttle) => Err(ApiError::throttled()),
            Some(Effect::Fail) => Err(injected_failure()),
            Some(_) => self.send_text(arn, message).and_then(|_| Err(injected_failure())),
            None => self.send_text(arn, message),
        };
        sent.map(drop).map_err(|error| {
            tracing::warn!(arn, %error, "message not sent to its destination queue");
            none()
        })
    }
}
