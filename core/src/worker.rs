//! Running one request alone, in an invocation of its own: what takes long, and what has brought a process down.

pub mod dispatch;

use std::time::Duration;

use tokio::time::Instant;

use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::executor::{Executor, NotClaimed};
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner, StoreError};
use dispatch::WorkerEvent;

/// Runs requests that were handed over.
#[derive(Debug)]
pub struct Worker<Q, P, D> {
    executor: Executor<Q, P, D>,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Worker<Q, P, D> {
    /// A worker that runs requests so.
    #[must_use]
    pub fn new(executor: Executor<Q, P, D>) -> Self {
        Self { executor }
    }

    /// Runs a request until it ends, waits for another attempt, or goes on in another invocation. One that is run
    /// already, or has ended, is left alone.
    ///
    /// A wait is left to the sweeper, however short: nothing else would fill the time.
    ///
    /// # Errors
    /// When it was not claimed: it is pending as before, and is brought back when its timer fires.
    pub async fn run(&self, event: &WorkerEvent, deadline: Timestamp) -> Result<(), StoreError> {
        let deadline = Instant::now() + deadline.since(self.executor.clock.now());
        match self.executor.run(&event.key(), Runner::Worker, Duration::ZERO, deadline).await {
            Ok(_) => Ok(()),
            Err(NotClaimed::NoTimeLeft) => {
                tracing::error!(request = event.request, "this invocation has no time for a request");
                Ok(())
            }
            Err(NotClaimed::Store(error)) => Err(error),
        }
    }
}
