use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use super::attributes::{RUNNER, WORKER};
use super::key::{key, status_shard, timer_shard};
use super::parts::text_or_part;
use crate::ids::ConnectionId;
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::dynamodb::codec::{Item, json, n, s, time};
use crate::store::dynamodb::part_item;
use crate::store::{Ending, PastAttempt, Request, Runner};

/// A request encoded as DynamoDB items.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The request's own item.
    pub item: Item,
    /// Separate items (part items), one for each value that is too large for the request's own item.
    pub parts: Vec<Item>,
}

/// Encodes a request as DynamoDB items without a time to live.
///
/// `timer_at` is the time at which the sweeper must handle the request; `shards` is the number of shards of each index.
#[must_use]
pub fn encode(request: &Request, timer_at: Option<Timestamp>, shards: u8) -> Encoded {
    let key_text = request.key();
    let mut item = key(&key_text);
    let mut parts = Vec::new();
    let mut value = |attribute: &str, part: String, value: &Value| match text_or_part(value) {
        Ok(text) => (attribute.to_owned(), s(text)),
        Err(text) => {
            parts.push(part_item::encode(&key_text, &part, text, None));
            (format!("{attribute}_part"), s(part))
        }
    };
    item.extend([value("payload", part_item::PAYLOAD_PART.to_owned(), &request.payload)]);
    if let Some(checkpoint) = &request.checkpoint {
        item.extend([value("checkpoint", part_item::CHECKPOINT_PART.to_owned(), checkpoint)]);
    }
    if let Some(Ending::Completed(result)) = &request.ending {
        item.extend([value("result", part_item::result_part(request.epoch), result)]);
    }
    let mut put = |attribute: &str, value: AttributeValue| item.insert(attribute.to_owned(), value);
    put("client_id", s(request.id.as_str()));
    put("user_id", s(request.user.as_str()));
    put("tenant_id", s(request.tenant.as_str()));
    put("connection_id", s(request.connection.as_str()));
    put("action", s(&request.action));
    put("metadata", json(&serde_json::json!(request.metadata)));
    put("status", s(request.status.as_str()));
    put("status_shard", s(status_shard(request.status, &key_text, shards)));
    put("attempt", n(request.attempt));
    put("max_attempts", n(request.max_attempts));
    if request.continuations > 0 {
        put("continuations", n(request.continuations));
    }
    match request.runner {
        Runner::Processor => {}
        Runner::Worker => {
            put(RUNNER, s(WORKER));
        }
    }
    put("epoch", n(request.epoch));
    put("seq", n(request.seq));
    if let Some(lease) = &request.lease {
        put("owner", s(&lease.owner));
        put("lease_expires_at", time(lease.expires_at));
    }
    if request.cancel_requested {
        put("cancel_requested", AttributeValue::Bool(true));
    }
    if !request.history.is_empty() {
        put("history", history_value(&request.history));
    }
    put("percentage", n(request.progress.percentage));
    put("progress_message", s(&request.progress.message));
    put("progress_metadata", json(&request.progress.metadata.clone().into()));
    if let Some(Ending::Failed(error)) = &request.ending {
        put("error", error_value(error));
    }
    if request.is_dead_letter_due {
        put("dead_letter", AttributeValue::Bool(true));
    }
    if let Some(letter) = &request.redrive_of {
        put("redrive_of", s(letter));
    }
    if let Some(id) = &request.redriven_as {
        put("redriven_as", s(id.as_str()));
    }
    let subscribed = |id: &ConnectionId| (id.to_string(), n(0));
    put("subscribers", AttributeValue::M(request.subscribers.iter().map(subscribed).collect()));
    put("created_at", time(request.created_at));
    if let Some(at) = request.started_at {
        put("started_at", time(at));
    }
    if let Some(at) = request.finished_at {
        put("finished_at", time(at));
    }
    if let Some(at) = timer_at {
        put("timer_shard", s(timer_shard(&key_text, shards)));
        put("timer_at", time(at));
    }
    Encoded { item, parts }
}

/// Encodes an error as the value of the attribute `error`.
///
/// # Panics
/// Never, because an error body consists of strings and JSON values, which always serialize.
#[must_use]
pub fn error_value(error: &ErrorBody) -> AttributeValue {
    s(serde_json::to_string(error).expect("an error body always serializes to JSON"))
}

/// Encodes an attempt history as the value of the attribute `history`.
///
/// # Panics
/// Never, because a past attempt consists of strings and numbers, which always serialize.
#[must_use]
pub fn history_value(history: &[PastAttempt]) -> AttributeValue {
    s(serde_json::to_string(history).expect("a history always serializes to JSON"))
}
