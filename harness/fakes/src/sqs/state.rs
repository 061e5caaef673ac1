//! State of the queues, guarded by their lock.

use serde_json::Value;

use super::error::ApiError;
use super::store::{Queue, Store};

#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) tasks: Vec<MoveTask>,
}

/// A finished message move task.
#[derive(Debug)]
pub(super) struct MoveTask {
    pub(super) handle: String,
    pub(super) source: String,
    /// The task's entry in a `ListMessageMoveTasks` answer.
    pub(super) listed: Value,
}

impl State {
    /// Returns the queue with this name, URL or ARN.
    pub(super) fn queue(&self, name: &str) -> Result<Queue, ApiError> {
        self.store.queue(name_in(name))?.ok_or_else(ApiError::no_queue)
    }
}

/// Returns the queue name at the end of a queue's URL or ARN.
pub(super) fn name_in(url_or_arn: &str) -> &str {
    url_or_arn.rsplit(['/', ':']).next().unwrap_or(url_or_arn)
}
