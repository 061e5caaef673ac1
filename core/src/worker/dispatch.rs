//! Dispatches requests to the worker, which runs each request in its own invocation.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::ids::RequestKey;
use crate::service_error::ServiceError;

/// The event of a worker invocation: the key of the request to run, and no other data.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkerEvent {
    /// The key of the request to run, as stored in the requests table.
    pub request: String,
}

impl WorkerEvent {
    /// Creates the worker event for the request with this key.
    #[must_use]
    pub fn of(key: &RequestKey) -> Self {
        Self { request: key.as_str().to_owned() }
    }

    /// Returns the key of the request to run.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::from_stored(self.request.clone())
    }
}

/// Dispatches requests to the worker function.
pub trait WorkerDispatch: Send + Sync {
    /// Asks the worker to run a request soon.
    ///
    /// A dispatch may get lost. The request then stays pending, and the sweeper nudges it (writes it into the
    /// stream again).
    ///
    /// # Errors
    /// [`ServiceError`] if the dispatch failed, or may have failed.
    fn dispatch(&self, key: &RequestKey) -> impl Future<Output = Result<(), ServiceError>> + Send;
}
