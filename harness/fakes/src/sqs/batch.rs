//! Batch operations, on up to ten messages in one call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::attributes::MAX_MESSAGE_BYTES;
use super::error::ApiError;
use super::queues::Queues;
use super::request::read;
use super::state::State;
use super::store::Queue;

const MAX_BATCH: usize = 10;

impl Queues {
    pub(super) fn batch(
        &self,
        state: &State,
        queue: &Queue,
        operation: &str,
        entries: &[Value],
    ) -> Result<Value, ApiError> {
        if entries.is_empty() {
            return Err(ApiError::empty_batch());
        }
        if entries.len() > MAX_BATCH {
            return Err(ApiError::batch_too_many(entries.len()));
        }
        let mut ids = BTreeSet::new();
        for entry in entries {
            let id = entry["Id"].as_str().ok_or_else(|| ApiError::missing("Id"))?;
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !(1..=80).contains(&id.len()) || !id.bytes().all(allowed) {
                return Err(ApiError::batch_id());
            }
            if !ids.insert(id) {
                return Err(ApiError::batch_id_twice(id));
            }
        }
        if operation == "SendMessageBatch" {
            let size = |entry: &Value| entry["MessageBody"].as_str().map_or(0, str::len);
            let (bytes, limit) = (entries.iter().map(size).sum(), usize::try_from(MAX_MESSAGE_BYTES));
            if let Some(limit) = limit.ok().filter(|limit| bytes > *limit) {
                return Err(ApiError::batch_too_long(limit, bytes));
            }
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let text = entry.to_string();
            let result = match operation {
                "SendMessageBatch" => {
                    read(text.as_bytes()).and_then(|message| self.send_message(state, queue, message))
                }
                "DeleteMessageBatch" => read(text.as_bytes())
                    .and_then(|handle| self.delete(state, queue, &handle))
                    .map(|()| json!({})),
                _ => read(text.as_bytes())
                    .and_then(|handle| self.change_visibility(state, queue, &handle))
                    .map(|()| json!({})),
            };
            match result {
                Ok(mut answer) => {
                    answer["Id"] = entry["Id"].clone();
                    successful.push(answer);
                }
                Err(error) => failed.push(json!({
                    "Id": entry["Id"], "Code": error.code(), "Message": error.message(),
                    "SenderFault": error.is_sender_fault(),
                })),
            }
        }
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }
}
