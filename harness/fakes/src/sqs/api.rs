//! Parses each SQS call, and runs the operation that the call names.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::moves;
use super::queue::{ListQueues, page};
use super::queues::Queues;
use super::request::read;
use super::send::SendMessage;
use super::state::name_in;

type Answer = Result<Value, ApiError>;

/// Returns the name of the queue that a call addresses, so that fault rules can select the queue; `None` if the call
/// addresses no queue.
pub(super) fn queue_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = ["QueueUrl", "QueueName", "SourceArn"].iter().find_map(|member| body[*member].as_str())?;
    Some(name_in(text).to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Send {
    queue_url: String,
    #[serde(flatten)]
    message: SendMessage,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueRequest {
    queue_url: String,
    attribute_names: Option<Vec<String>>,
    attributes: Option<BTreeMap<String, String>>,
    entries: Option<Vec<Value>>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueByName {
    queue_name: String,
    attributes: Option<BTreeMap<String, String>>,
}

impl Queues {
    /// Answers one call. `origin` is the scheme and host with which the queue URLs in the answer begin.
    pub(super) async fn answer(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        if operation == "ReceiveMessage" {
            return self.receive(&read(body)?).await;
        }
        self.answer_now(operation, body, origin)
    }

    fn answer_now(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        let answer = match operation {
            "CreateQueue" => {
                let QueueByName { queue_name, attributes } = read(body)?;
                self.create_queue(&queue_name, &attributes.unwrap_or_default())?;
                Ok(json!({ "QueueUrl": self.url(origin, &queue_name) }))
            }
            "GetQueueUrl" => {
                let name = read::<QueueByName>(body)?.queue_name;
                let queue = self.lock().queue(&name)?;
                Ok(json!({ "QueueUrl": self.url(origin, &queue.name) }))
            }
            "ListQueues" => self.list_queues(read::<ListQueues>(body)?, origin),
            "SendMessage" => {
                let Send { queue_url, message } = read(body)?;
                let state = self.lock();
                self.send_message(&state, &state.queue(&queue_url)?, message)
            }
            "StartMessageMoveTask" => moves::start(self, read(body)?),
            "ListMessageMoveTasks" => moves::list(&self.lock(), read(body)?),
            "CancelMessageMoveTask" => moves::cancel(&self.lock(), read(body)?),
            "DeleteQueue"
            | "PurgeQueue"
            | "GetQueueAttributes"
            | "SetQueueAttributes"
            | "ListDeadLetterSourceQueues"
            | "SendMessageBatch"
            | "DeleteMessage"
            | "DeleteMessageBatch"
            | "ChangeMessageVisibility"
            | "ChangeMessageVisibilityBatch" => self.on_queue(operation, body, origin),
            _ => Err(ApiError::unknown_operation()),
        };
        self.changed();
        answer
    }

    fn on_queue(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        let request: QueueRequest = read(body)?;
        let state = self.lock();
        let mut queue = state.queue(&request.queue_url)?;
        match operation {
            "DeleteQueue" => state.store.delete_queue(&queue.name)?,
            "PurgeQueue" => self.purge(&state, &mut queue)?,
            "GetQueueAttributes" => {
                return self.attributes(&state, &queue, &request.attribute_names.unwrap_or_default());
            }
            "SetQueueAttributes" => {
                let attributes = request.attributes.ok_or_else(|| ApiError::missing("Attributes"))?;
                self.set_attributes(&state, &mut queue, &attributes)?;
            }
            "ListDeadLetterSourceQueues" => {
                let sources = self.sources(&state, &queue.name)?;
                let urls = sources.iter().map(|name| self.url(origin, name)).collect();
                return page("queueUrls", urls, request.max_results, request.next_token.as_deref());
            }
            "DeleteMessage" => self.delete(&state, &queue, &read(body)?)?,
            "ChangeMessageVisibility" => self.change_visibility(&state, &queue, &read(body)?)?,
            _ => {
                let entries = request.entries.ok_or_else(|| ApiError::missing("Entries"))?;
                return self.batch(&state, &queue, operation, &entries);
            }
        }
        Ok(json!({}))
    }
}
