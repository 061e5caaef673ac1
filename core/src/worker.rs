//! Running one request alone, in an invocation of its own: what takes long, and what has brought a process down.

use std::time::Duration;

use tokio::time::Instant;

use crate::attempts::{Attempts, NotClaimed};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner, StoreError};
use crate::workers::HandOver;

/// Runs requests that were handed over.
#[derive(Debug)]
pub struct Worker<Q, P, D> {
    attempts: Attempts<Q, P, D>,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Worker<Q, P, D> {
    /// A worker that runs requests so.
    #[must_use]
    pub fn new(attempts: Attempts<Q, P, D>) -> Self {
        Self { attempts }
    }

    /// Runs a request until it ends, waits for another attempt, or goes on in another invocation. One that is run
    /// already, or has ended, is left alone.
    ///
    /// A wait is left to the sweeper, however short: nothing else would fill the time.
    ///
    /// # Errors
    /// When it was not claimed: it is pending as before, and is brought back when its timer fires.
    pub async fn run(&self, event: &HandOver, deadline: Timestamp) -> Result<(), StoreError> {
        let deadline = Instant::now() + deadline.since(self.attempts.clock.now());
        match self.attempts.run(&event.key(), Runner::Worker, Duration::ZERO, deadline).await {
            Ok(_) => Ok(()),
            Err(NotClaimed::NoTimeLeft) => {
                tracing::error!(request = event.request, "this invocation has no time for a request");
                Ok(())
            }
            Err(NotClaimed::Store(error)) => Err(error),
        }
    }
}
