//! Sends messages to a queue.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::message::{MessageAttributes, check, md5, md5_of_attributes};
use super::queues::Queues;
use super::state::State;
use super::store::{Queue, Stored};
use crate::aws_format::uuid;
use crate::observe::Observation;

/// A message to send, from a `SendMessage` call or from one entry of a `SendMessageBatch` call.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SendMessage {
    message_body: String,
    delay_seconds: Option<u32>,
    message_attributes: Option<MessageAttributes>,
    message_system_attributes: Option<MessageAttributes>,
}

impl Queues {
    pub(super) fn send_message(
        &self,
        state: &State,
        queue: &Queue,
        message: SendMessage,
    ) -> Result<Value, ApiError> {
        let (name, body) = (queue.name.clone(), message.message_body.clone());
        let sent = self.put(state, queue, message)?;
        self.faults.notify(|| Observation::Queued { queue: name, body });
        Ok(sent)
    }

    fn put(&self, state: &State, queue: &Queue, message: SendMessage) -> Result<Value, ApiError> {
        let attributes = message.message_attributes.unwrap_or_default();
        let system = message.message_system_attributes.unwrap_or_default();
        let bytes = check(&message.message_body, &attributes)?;
        if bytes > usize::try_from(queue.attributes.max_bytes).unwrap_or(usize::MAX) {
            let limit = queue.attributes.max_bytes;
            let reason = format!("Message must be shorter than {limit} bytes.");
            return Err(ApiError::parameter(format!("One or more parameters are invalid. Reason: {reason}")));
        }
        let delay = message.delay_seconds.unwrap_or(queue.attributes.delay_secs);
        if delay > 900 {
            let message = format!(
                "Value {delay} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."
            );
            return Err(ApiError::parameter(message));
        }
        if let Some(name) = system.keys().find(|name| *name != "AWSTraceHeader") {
            let message = format!("Message system attribute name '{name}' is invalid.");
            return Err(ApiError::parameter(message));
        }
        let now = self.now();
        let mut answer = json!({
            "MessageId": uuid(&*self.inner.entropy),
            "MD5OfMessageBody": md5(&message.message_body),
        });
        if let Some(digest) = md5_of_attributes(&attributes) {
            answer["MD5OfMessageAttributes"] = digest.into();
        }
        if let Some(digest) = md5_of_attributes(&system) {
            answer["MD5OfMessageSystemAttributes"] = digest.into();
        }
        state.store.add(&Stored {
            number: 0,
            queue: queue.name.clone(),
            id: answer["MessageId"].as_str().unwrap_or_default().to_owned(),
            body: message.message_body,
            attributes,
            trace: system.into_values().next().and_then(|attribute| attribute.string_value),
            sent: now,
            visible: now + Duration::from_secs(delay.into()),
            received: 0,
            first_received: None,
            handle: None,
            source: None,
        })?;
        Ok(answer)
    }

    /// Sends a message that has a body and no attributes.
    pub(super) fn send_text(&self, queue: &str, body: String) -> Result<Value, ApiError> {
        let message = SendMessage {
            message_body: body,
            delay_seconds: None,
            message_attributes: None,
            message_system_attributes: None,
        };
        let answer = {
            let state = self.lock();
            self.send_message(&state, &state.queue(queue)?, message)
        };
        self.changed();
        answer
    }
}
