//! Moving dead letters back. A task has moved all that it can by the time the call that starts it returns.

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

/// Moves what waits in a dead-letter queue to `DestinationArn`, or each message back to where it came from.
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
                // Unlike one that becomes a dead letter, it is a new message: its id is another, and it is kept anew.
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

/// The tasks of a source, the latest first. One that has ended is listed without its handle.
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

/// No task runs any more when it could be cancelled.
pub(super) fn cancel(state: &State, request: Cancel) -> Result<Value, ApiError> {
    if state.tasks.iter().any(|task| task.handle == request.task_handle) {
        return Err(ApiError::unsupported("Only active tasks can be cancelled, and this one has ended."));
    }
    Err(ApiError::no_resource("Task does not exist."))
}
