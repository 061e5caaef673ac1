//! A call as it arrives, and what faults make of it.

use std::future::pending;

use super::api;
use super::error::ApiError;
use super::queues::Queues;
use super::response::Response;
use super::state::name_in;
use crate::destination::{Destination, NoDestination};
use crate::faults::{CallContext, Caller, Effect, Effects, Service};

/// What the header `x-amz-target` of each call of SQS begins with.
pub(super) const TARGET: &str = "AmazonSQS.";

impl Queues {
    /// Answers one call, unless a fault says otherwise: `target` is the header `x-amz-target`. `None` when the answer is
    /// lost.
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
            Some(Effect::Fail) => Err(on_purpose()),
            Some(Effect::FailAfterApply) => {
                self.answer(operation, body, origin).await.and_then(|_| Err(on_purpose()))
            }
            Some(Effect::LoseAnswer) => {
                // Whatever it would have been.
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

fn on_purpose() -> ApiError {
    ApiError::internal("The request processing has failed because of a fault on purpose.")
}

impl Destination for Queues {
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination> {
        let none = || NoDestination(arn.to_owned());
        if arn.split(':').nth(2) != Some("sqs") || self.arn(name_in(arn)) != arn {
            return Err(none());
        }
        // Lambda does not wait for its destinations, so none of what takes time can happen here.
        let possible = |effect| matches!(effect, Effect::Throttle | Effect::Fail | Effect::FailAfterApply);
        let effect = self.inject("SendMessage", Some(name_in(arn)), None, possible).effect;
        let sent = match effect {
            Some(Effect::Throttle) => Err(ApiError::throttled()),
            Some(Effect::Fail) => Err(on_purpose()),
            Some(_) => self.send_text(arn, message).and_then(|_| Err(on_purpose())),
            None => self.send_text(arn, message),
        };
        sent.map(drop).map_err(|error| {
            tracing::warn!(arn, %error, "a message cannot be sent to its destination");
            none()
        })
    }
}
