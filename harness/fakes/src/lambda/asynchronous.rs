//! Asynchronous invocations (invocation type `Event`): Lambda's internal queue, with retries and destinations.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::function::Function;
use super::functions::{Functions, Inner};
use super::identifiers::function_name;
use super::invoke::{EXECUTED_VERSION, InvokeError, error_payload};
use crate::aws_format::{iso_8601, uuid};
use crate::destination::{Destination, NoDestination};
use crate::faults::{CallContext, Effect, Effects, Service};

/// Maximum payload of an asynchronous invocation in bytes: 1 MB. Until October 2025 the maximum was 256 KB
/// (Lambda API reference, `Invoke`).
pub(super) const MAX_PAYLOAD_BYTES: usize = 1_048_576;

/// Delays before the first and the second retry of a failed invocation (Lambda guide, "Error handling for
/// asynchronous invocation").
const RETRIES: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(2)];

/// Delay before the first retry of a throttled event. The delay doubles with each retry, up to
/// [`MAX_BACKOFF`] (same source as [`RETRIES`]).
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_mins(5);

impl Functions {
    /// Queues an asynchronous invocation of `function` and returns the invocation's request id. Retries have
    /// the same request id.
    ///
    /// By default, a failed invocation is retried after one minute and again after two more minutes. A
    /// throttled invocation is retried until the event reaches its maximum age. Queued invocations are lost
    /// when the stage ends.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`] if the stage has no such function, [`InvokeError::TooLarge`] if the payload is
    /// too large, [`InvokeError::Throttled`] if the stage is shutting down.
    pub fn invoke_async(&self, function: &str, payload: Bytes) -> Result<String, InvokeError> {
        self.queue(function, payload, None)
    }

    /// Queues an invocation like [`invoke_async`](Self::invoke_async). `caused_by` is the `X-Amzn-Trace-Id`
    /// header of the call, which is needed to detect loops of invocations.
    pub(super) fn queue(
        &self,
        function: &str,
        payload: Bytes,
        caused_by: Option<&str>,
    ) -> Result<String, InvokeError> {
        let function = Arc::clone(self.0.function(function)?);
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge(MAX_PAYLOAD_BYTES));
        }
        if self.0.lifetimes.is_closing() {
            return Err(InvokeError::Throttled);
        }
        let request_id = uuid(&*self.options().entropy);
        let caused_by = caused_by.map(str::to_owned);
        let event = Event { request_id: request_id.clone(), payload, caused_by, function };
        let (inner, lifetimes) = (Arc::downgrade(&self.0), self.0.lifetimes.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = lifetimes.closed() => {}
                () = event.deliver(inner) => {}
            }
        });
        Ok(request_id)
    }
}

impl Destination for Functions {
    /// Invokes the function with the ARN `arn` asynchronously. A message to an ARN that is not a function of
    /// the stage goes to [`Options::destination`](super::Options::destination).
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination> {
        let own = function_name(arn).filter(|name| arn.starts_with("arn:") && self.0.function(name).is_ok());
        match (own, &self.options().destination) {
            (Some(name), _) => {
                let sent = self.invoke_async(name, Bytes::from(message));
                sent.map(drop).map_err(|error| NoDestination(format!("{arn} ({error})")))
            }
            (None, Some(destination)) => destination.send(arn, message),
            (None, None) => Err(NoDestination(arn.to_owned())),
        }
    }
}

/// One queued asynchronous invocation.
#[derive(Debug)]
struct Event {
    request_id: String,
    payload: Bytes,
    caused_by: Option<String>,
    function: Arc<Function>,
}

/// Final result of a queued event.
#[derive(Debug)]
struct Outcome {
    /// Value of `condition` in the invocation record: `Success`, `RetriesExhausted` or `EventAgeExceeded`. No
    /// source documents the condition for a function that is never invoked; `RetriesExhausted` is a guess.
    condition: &'static str,
    /// Number of attempts to invoke the function, including throttled attempts.
    invocations: u32,
    /// Last reply or error that the function returned; `None` if the function never ran.
    response: Option<Result<Bytes, InvokeError>>,
}

impl Event {
    /// Invokes the function until an invocation succeeds or no retry is left. Then sends the invocation
    /// record and the dead letter, if the function has destinations for them.
    ///
    /// `functions` is a weak reference, which each attempt upgrades. A queued event keeps the functions alive
    /// only while an attempt runs.
    async fn deliver(self, functions: Weak<Inner>) {
        let Some(outcome) = self.run(&functions).await else { return };
        let Some(inner) = functions.upgrade() else { return };
        let settings = &self.function.config.asynchronous;
        let failed = outcome.condition != "Success";
        let record = if failed { &settings.on_failure } else { &settings.on_success };
        let functions = Functions(inner);
        if failed && record.is_none() && settings.dead_letter.is_none() {
            let line = format!("RequestId: {} Error: event dropped: {}", self.request_id, outcome.condition);
            functions.options().log.line(&self.function.config.name, &line);
        }
        if let Some(arn) = record {
            self.send(&functions, arn, self.record(&outcome, &functions).to_string());
        }
        if let Some(arn) = settings.dead_letter.as_ref().filter(|_| failed) {
            self.send(&functions, arn, String::from_utf8_lossy(&self.payload).into_owned());
        }
    }

    /// Sends `message` to a destination. AWS counts failures in the metric `DestinationDeliveryFailures`; the
    /// fake writes a line with that name to the function's log instead.
    fn send(&self, functions: &Functions, arn: &str, message: String) {
        if let Err(error) = functions.send(arn, message) {
            let line = format!("DestinationDeliveryFailures: {error}");
            functions.options().log.line(&self.function.config.name, &line);
        }
    }

    /// Invokes the function until the event succeeds, fails for good, or is too old. Returns `None` if the
    /// functions were dropped or a fault lost the event.
    async fn run(&self, functions: &Weak<Inner>) -> Option<Outcome> {
        let settings = &self.function.config.asynchronous;
        let queued = Instant::now();
        let (mut invocations, mut failures, mut backoff) = (0, 0, FIRST_BACKOFF);
        let mut response = None;
        // With a reserved concurrency of 0 the function can never run, so Lambda does not retry (Lambda
        // guide, "Adding a destination").
        if self.function.config.reserved_concurrency == Some(0) {
            return Some(Outcome { condition: "RetriesExhausted", invocations, response });
        }
        loop {
            // Dropping the last `Functions` must end the environments, so no wait holds a strong reference.
            let effects = self.effects(&*functions.upgrade()?);
            if !effects.delay.is_zero() {
                sleep(effects.delay).await;
            }
            let inner = functions.upgrade()?;
            if effects.effect == Some(Effect::Fail) {
                // The fault loses the event, so no invocation record is sent.
                return None;
            }
            let reply = if effects.effect == Some(Effect::Duplicate) {
                tokio::join!(self.request(&inner), self.request(&inner)).0
            } else {
                self.request(&inner).await
            };
            if reply == Err(InvokeError::Recursion) {
                return Some(Outcome { condition: "RetriesExhausted", invocations, response });
            }
            invocations += 1;
            let wait = match reply {
                Ok(reply) => {
                    return Some(Outcome { condition: "Success", invocations, response: Some(Ok(reply)) });
                }
                Err(InvokeError::Throttled | InvokeError::Service) => {
                    let wait = backoff;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    wait
                }
                Err(error) => {
                    response = Some(Err(error));
                    if failures >= settings.maximum_retry_attempts {
                        return Some(Outcome { condition: "RetriesExhausted", invocations, response });
                    }
                    let wait = RETRIES[usize::from(failures > 0)];
                    failures += 1;
                    wait
                }
            };
            drop(inner);
            let left = settings.maximum_event_age.saturating_sub(queued.elapsed());
            sleep(wait.min(left)).await;
            if wait >= left {
                return Some(Outcome { condition: "EventAgeExceeded", invocations, response });
            }
        }
    }

    async fn request(&self, functions: &Arc<Inner>) -> Result<Bytes, InvokeError> {
        let (name, request_id) = (&self.function.config.name, self.request_id.clone());
        let functions = Arc::clone(functions);
        functions.requested(name, request_id, self.payload.clone(), self.caused_by.as_deref()).await
    }

    /// Returns the effects of faults on one attempt to invoke the function.
    fn effects(&self, functions: &Inner) -> Effects {
        let resources: &[&str] = &[&self.function.config.name];
        let (service, operation) = (Service::Lambda, CallContext::EVENT);
        let context = CallContext { service, operation, resources, index: None, caller: None };
        let possible = |effect| matches!(effect, Effect::Delay(_) | Effect::Fail | Effect::Duplicate);
        functions.options.faults.inject(&context, possible)
    }

    /// Builds the invocation record for a destination (Lambda guide, "Capturing records of asynchronous
    /// invocations").
    fn record(&self, outcome: &Outcome, functions: &Functions) -> Value {
        let mut record = json!({
            "version": "1.0",
            "timestamp": iso_8601(functions.options().clock.now()),
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": format!("{}:{EXECUTED_VERSION}", self.function.config.arn()),
                "condition": outcome.condition,
                "approximateInvokeCount": outcome.invocations,
            },
            "requestPayload": parsed(&self.payload),
        });
        if let Some(response) = &outcome.response {
            let mut context = json!({ "statusCode": 200, "executedVersion": EXECUTED_VERSION });
            let payload = match response {
                Ok(reply) => parsed(reply),
                Err(error) => {
                    context["functionError"] = json!("Unhandled");
                    error_payload(error)
                }
            };
            record["responseContext"] = context;
            record["responsePayload"] = payload;
        }
        record
    }
}

/// Parses `payload` as JSON. A payload that is not JSON becomes a JSON string.
fn parsed(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|_| json!(String::from_utf8_lossy(payload)))
}
