//! Receives messages, with long polling.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use streamer::ports::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::error::ApiError;
use super::message::{MessageAttribute, md5, md5_of_attributes};
use super::queues::Queues;
use super::receipt::{receipt, visibility};
use super::state::{State, name_in};
use super::store::{Queue, Stored};
use crate::aws_format::uuid;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReceiveMessage {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    attribute_names: Option<Vec<String>>,
    message_system_attribute_names: Option<Vec<String>>,
    message_attribute_names: Option<Vec<String>>,
}

impl Queues {
    /// Receives messages. If no message is available, waits for the time that the call or the queue sets.
    pub(super) async fn receive(&self, request: &ReceiveMessage) -> Result<Value, ApiError> {
        let mut changes = self.inner.changes.subscribe();
        let mut deadline = None;
        loop {
            changes.mark_unchanged();
            let (messages, wait, next) = self.take(request)?;
            if !messages.is_empty() {
                return Ok(json!({ "Messages": messages }));
            }
            if wait.is_zero() {
                return Ok(json!({}));
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + wait);
            if Instant::now() >= until {
                return Ok(json!({}));
            }
            let wake =
                next.map_or(until, |next| until.min(Instant::now() + next.max(Duration::from_millis(1))));
            tokio::select! {
                biased;
                // `changed` cannot fail, because `self` owns a sender of the channel.
                _ = changes.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Receives the messages that are visible now. Also returns the wait time of the call, and the time until the next
    /// message becomes visible.
    fn take(&self, request: &ReceiveMessage) -> Result<(Vec<Value>, Duration, Option<Duration>), ApiError> {
        let state = self.lock();
        let queue = state.queue(&request.queue_url)?;
        let limit = request.max_number_of_messages.unwrap_or(1);
        if !(1..=10).contains(&limit) {
            return Err(ApiError::parameter(format!(
                "Value {limit} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if \
                 provided."
            )));
        }
        let timeout = visibility(
            request.visibility_timeout.unwrap_or(queue.attributes.visibility_timeout_secs.into()),
        )?;
        let wait = request.wait_time_seconds.unwrap_or(queue.attributes.wait_secs.into());
        if wait > 20 {
            return Err(ApiError::parameter(format!(
                "Value {wait} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."
            )));
        }
        let now = self.now();
        self.expire(&state, &queue, now)?;
        self.move_dead_letters(&state, &queue, now)?;
        let mut messages = Vec::new();
        for message in state.store.waiting(&queue.name, now, limit)? {
            let handle = receipt(&message, &uuid(&*self.inner.entropy));
            state.store.received(message.number, &handle, now, now + timeout)?;
            messages.push(self.received(&message, &handle, request, now));
        }
        let next = state.store.next_visible(&queue.name, now)?.map(|next| next.since(now));
        Ok((messages, Duration::from_secs(wait), next))
    }

    /// Moves visible messages to the dead-letter queue if they were received as often as the redrive policy allows.
    fn move_dead_letters(&self, state: &State, queue: &Queue, now: Timestamp) -> Result<(), ApiError> {
        let Some(redrive) = &queue.attributes.redrive else { return Ok(()) };
        // If the dead-letter queue was deleted, the messages stay in their queue, as on AWS.
        let Some(target) = state.store.queue(name_in(&redrive.dead_letter_target_arn))? else {
            return Ok(());
        };
        let source = self.arn(&queue.name);
        for number in state.store.received_too_often(&queue.name, now, redrive.max_receive_count)? {
            state.store.transfer(number, &target.name, now, &source)?;
            self.changed();
        }
        Ok(())
    }

    pub(super) fn expire(&self, state: &State, queue: &Queue, now: Timestamp) -> Result<(), ApiError> {
        let retention = u64::from(queue.attributes.retention_secs) * 1_000;
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(retention));
        Ok(state.store.expire(&queue.name, before)?)
    }

    /// Returns a message in the format of a `ReceiveMessage` answer.
    fn received(&self, message: &Stored, handle: &str, request: &ReceiveMessage, now: Timestamp) -> Value {
        let mut answer = json!({
            "MessageId": message.id,
            "ReceiptHandle": handle,
            "MD5OfBody": md5(&message.body),
            "Body": message.body,
        });
        let first = message.first_received.unwrap_or(now);
        let mut system = vec![
            ("SenderId", self.inner.account_id.clone()),
            ("SentTimestamp", message.sent.as_millis().to_string()),
            ("ApproximateReceiveCount", (message.received + 1).to_string()),
            ("ApproximateFirstReceiveTimestamp", first.as_millis().to_string()),
        ];
        system.extend(message.source.clone().map(|source| ("DeadLetterQueueSourceArn", source)));
        system.extend(message.trace.clone().map(|trace| ("AWSTraceHeader", trace)));
        let requested: Vec<&String> =
            request.attribute_names.iter().chain(&request.message_system_attribute_names).flatten().collect();
        let is_requested =
            |name: &str| requested.iter().any(|requested| *requested == name || *requested == "All");
        let system: Map<String, Value> = system
            .into_iter()
            .filter(|(name, _)| is_requested(name))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        if !system.is_empty() {
            answer["Attributes"] = system.into();
        }
        let patterns = request.message_attribute_names.as_deref().unwrap_or_default();
        let matches = |name: &String| {
            patterns.iter().any(|pattern| match pattern.strip_suffix(".*") {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == "All" || pattern == name,
            })
        };
        let requested: BTreeMap<&String, &MessageAttribute> =
            message.attributes.iter().filter(|(name, _)| matches(name)).collect();
        if let Some(digest) = md5_of_attributes(requested.iter().map(|(name, value)| (*name, *value))) {
            answer["MD5OfMessageAttributes"] = digest.into();
            answer["MessageAttributes"] = json!(requested);
        }
        answer
    }
}
