//! Handing a request over to the worker, which runs it alone in an invocation of its own.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::ids::RequestKey;
use crate::service_error::ServiceError;

/// What the worker is invoked with: which request, and nothing else of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkerEvent {
    /// The request's key.
    pub request: String,
}

impl WorkerEvent {
    /// The event for this request.
    #[must_use]
    pub fn of(key: &RequestKey) -> Self {
        Self { request: key.as_str().to_owned() }
    }

    /// The request's key.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::from_stored(self.request.clone())
    }
}

/// The way to the worker.
pub trait WorkerDispatch: Send + Sync {
    /// Has the worker take up a request, some time soon.
    ///
    /// It may be lost on the way: the request stays pending, and the sweeper brings it back.
    ///
    /// # Errors
    /// When it is not known to have been taken.
    fn dispatch(&self, key: &RequestKey) -> impl Future<Output = Result<(), ServiceError>> + Send;
}
