//! Runs one request per invocation: long requests, continuations, and requests whose process crashed.

pub mod dispatch;

use std::time::Duration;

use tokio::time::Instant;

use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::executor::{Executor, NotClaimed};
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner, StoreError};
use dispatch::WorkerEvent;

/// Runs dispatched requests, one per invocation.
#[derive(Debug)]
pub struct Worker<Q, P, D> {
    executor: Executor<Q, P, D>,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Worker<Q, P, D> {
    /// Creates a worker that runs requests through `executor`.
    #[must_use]
    pub fn new(executor: Executor<Q, P, D>) -> Self {
        Self { executor }
    }

    /// Runs one attempt of the event's request. Does nothing if the request is already running or terminal.
    ///
    /// The worker does not wait for a retry, not even for a short time, because the invocation would be idle.
    /// The sweeper starts the retry when it is due.
    ///
    /// # Errors
    /// [`StoreError`] if the store rejected the claim or did not answer. If the claim was not written, the
    /// request stays pending, and the sweeper writes the request into the stream again after its timer fires.
    pub async fn run(&self, event: &WorkerEvent, deadline: Timestamp) -> Result<(), StoreError> {
        let deadline = Instant::now() + deadline.since(self.executor.clock.now());
        match self.executor.run(&event.key(), Runner::Worker, Duration::ZERO, deadline).await {
            Ok(_) => Ok(()),
            Err(NotClaimed::NoTimeLeft) => {
                tracing::error!(request = event.request, "too little time left; request not run");
                Ok(())
            }
            Err(NotClaimed::Store(error)) => Err(error),
        }
    }
}
