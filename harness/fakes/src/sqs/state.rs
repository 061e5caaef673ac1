//! What is behind the lock of the queues.

use serde_json::Value;

use super::error::ApiError;
use super::store::{Queue, Store};

#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) tasks: Vec<MoveTask>,
}

/// A message move task that has ended.
#[derive(Debug)]
pub(super) struct MoveTask {
    pub(super) handle: String,
    pub(super) source: String,
    /// As it is listed.
    pub(super) listed: Value,
}

impl State {
    /// The queue of a name, a URL or an ARN.
    pub(super) fn queue(&self, name: &str) -> Result<Queue, ApiError> {
        self.store.queue(name_in(name))?.ok_or_else(ApiError::no_queue)
    }
}

/// The name at the end of a queue's URL or ARN.
pub(super) fn name_in(url_or_arn: &str) -> &str {
    url_or_arn.rsplit(['/', ':']).next().unwrap_or(url_or_arn)
}
