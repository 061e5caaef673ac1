//! Message move tasks, which move dead letters back to their source queues.
//!
//! In this fake, the call that starts a task moves all messages before it returns.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::queues::Queues;
use super::state::{MoveTask, State, name_in};
use super::store::Stored;
use crate::aws_format::uuid;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Start {
    source_arn: String,
    destination_arn: Option<String>,
    max_number_of_messages_per_second: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct List {
    source_arn: String,
    max_results: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Cancel {
    task_handle: String,
}

fn no_queue() -> ApiError {
    ApiError::no_resource("The resource that you specified for the SourceArn parameter doesn't exist.")
}

/// Moves all receivable messages of a dead-letter queue to `DestinationArn` or, without `DestinationArn`, each message
/// back to its source queue.
pub(super) fn start(queues: &Queues, request: Start) -> Result<Value, ApiError> {
    if request.max_number_of_messages_per_second.is_some_and(|rate| !(1..=500).contains(&rate)) {
        return Err(ApiError::parameter(
            "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: Must be between 1 and 500.",
        ));
    }
    let mut state = queues.lock();
    let source = state.queue(&request.source_arn).map_err(|_| no_queue())?;
    if queues.sources(&state, &source.name)?.is_empty() {
        return Err(ApiError::parameter("Source queue must be configured as a Dead Letter Queue."));
    }
    if let Some(destination) = &request.destination_arn
        && state.store.queue(name_in(destination))?.is_none()
    {
        return Err(ApiError::no_resource(
            "The resource that you specified for the DestinationArn parameter doesn't exist.",
        ));
    }
    let (now, mut moved, mut failure) = (queues.now(), 0_u64, None);
    queues.expire(&state, &source, now)?;
    let waiting = state.store.waiting(&source.name, now, usize::MAX)?;
    let to_move = waiting.len();
    for message in waiting {
        let destination = match request.destination_arn.as_ref().or(message.source.as_ref()) {
            Some(arn) => state.store.queue(name_in(arn))?,
            None => None,
        };
        match destination {
            Some(destination) => {
                // The moved message is a new message with a new id and a new retention period. In contrast, a message
                // that becomes a dead letter keeps its id and its retention period.
                let id = uuid(&*queues.inner.entropy);
                let number = message.number;
                state.store.add(&Stored {
                    queue: destination.name,
                    id,
                    sent: now,
                    visible: now,
                    ..message
                })?;
                state.store.delete(number)?;
                moved += 1;
            }
            None => failure = Some("CouldNotDetermineMessageSource"),
        }
    }
    let handle = BASE64_STANDARD.encode(format!("{}/{}", uuid(&*queues.inner.entropy), source.name));
    let mut listed = json!({
        "Status": if failure.is_some() { "FAILED" } else { "COMPLETED" },
        "SourceArn": request.source_arn,
        "ApproximateNumberOfMessagesMoved": moved,
        "ApproximateNumberOfMessagesToMove": to_move,
        "StartedTimestamp": now.as_millis(),
    });
    if let Some(destination) = request.destination_arn {
        listed["DestinationArn"] = destination.into();
    }
    if let Some(failure) = failure {
        listed["FailureReason"] = failure.into();
    }
    state.tasks.push(MoveTask { handle: handle.clone(), source: source.name, listed });
    Ok(json!({ "TaskHandle": handle }))
}

/// Returns the move tasks of a source queue, latest first. A finished task is listed without its handle.
pub(super) fn list(state: &State, request: List) -> Result<Value, ApiError> {
    let limit = request.max_results.unwrap_or(1);
    if !(1..=10).contains(&limit) {
        return Err(ApiError::parameter(
            "Value for parameter MaxResults is invalid. Reason: Must be between 1 and 10.",
        ));
    }
    let source = state.queue(&request.source_arn).map_err(|_| no_queue())?;
    let of_source = state.tasks.iter().rev().filter(|task| task.source == source.name);
    let listed: Vec<&Value> = of_source.take(limit).map(|task| &task.listed).collect();
    Ok(json!({ "Results": listed }))
}

/// Refuses every request to cancel a task, because a task is finished when the call that starts the task returns.
pub(super) fn cancel(state: &State, request: Cancel) -> Result<Value, ApiError> {
    if state.tasks.iter().any(|task| task.handle == request.task_handle) {
        return Err(ApiError::unsupported("Only active tasks can be cancelled, and this task is finished."));
    }
    Err(ApiError::no_resource("Task does not exist."))
}
