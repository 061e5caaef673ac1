//! Runs queued requests: claims a request, runs its handler, pushes its progress, and writes the outcome.
//!
//! The processor and the worker share this code.

mod attempt;
mod claim;
mod ending;
mod outcome;
mod settings;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

pub use settings::ExecutorSettings;

use crate::app::App;
use crate::handler::HandlerRuntime;
use crate::ports::{Clock, Entropy};
use crate::store::StoreError;

/// Runs requests for the processor and the worker.
///
/// An executor holds the handlers, ports and settings that an attempt (one run of a handler under one claim)
/// needs.
pub struct Executor<Q, P, D> {
    /// The app, with its handlers, middleware and retry policies.
    pub app: Arc<App>,
    /// The request store, where requests are claimed and their outcomes are written.
    pub queue: Q,
    /// The port that sends frames to clients.
    pub connections: P,
    /// The port that sends dead letters, which report requests that failed for good.
    pub dead_letters: D,
    /// The clock that gives the current time.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes, used for owner tokens and for the jitter of retry waits.
    pub entropy: Arc<dyn Entropy>,
    /// The tokio runtime that handlers run on.
    ///
    /// Attempts should run on a different runtime, so that a handler that blocks its thread delays neither
    /// lease renewals nor pushes. If an aborted handler still blocks the last thread of this runtime, later
    /// handlers run on a fresh runtime.
    pub handler_runtime: HandlerRuntime,
    /// Settings of attempts, such as the lease duration and the push timeout.
    pub settings: ExecutorSettings,
}

impl<Q: fmt::Debug, P: fmt::Debug, D: fmt::Debug> fmt::Debug for Executor<Q, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("app", &self.app)
            .field("queue", &self.queue)
            .field("connections", &self.connections)
            .field("dead_letters", &self.dead_letters)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Result of [`Executor::run`] for one request.
#[derive(Debug)]
pub(crate) enum RunResult {
    /// The request was run, or did not need to be run.
    Done,
    /// The worker must run the request; the executor has not claimed the request.
    ForWorker,
    /// The attempt failed, and the request's next attempt is due at this instant.
    RetryAt(Instant),
}

/// Reason why [`Executor::run`] did not claim a request.
#[derive(Debug)]
pub(crate) enum NotClaimed {
    /// Too little of the invocation's time is left to run the request.
    NoTimeLeft,
    /// The store failed or did not answer. The claim may have been written nevertheless.
    Store(StoreError),
}

impl<Q, P, D> Executor<Q, P, D> {
    /// Returns a random factor from 0 to 1 that scales a retry wait.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// Returns a fresh owner token, which identifies one claim: 128 random bits in hexadecimal.
    fn owner_token(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }
}
