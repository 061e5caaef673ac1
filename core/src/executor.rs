//! Running requests: claimed, run, reported on, ended. The processor and the worker both do it this way.

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

/// What runs requests: all that an attempt stands on.
pub struct Executor<Q, P, D> {
    /// The handlers.
    pub app: Arc<App>,
    /// Where requests are claimed, and end.
    pub queue: Q,
    /// The way to the clients.
    pub connections: P,
    /// Where it is told what has failed for good.
    pub dead_letters: D,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where owner tokens and the chance in waits come from.
    pub entropy: Arc<dyn Entropy>,
    /// The runtime that handlers run on. Where that is not the one that attempts are made on, a handler that burns CPU keeps
    /// neither leases from being renewed nor frames from being pushed; and one that holds its last thread past its time holds
    /// up nobody who comes after it, who runs on a fresh one.
    pub handler_runtime: HandlerRuntime,
    /// How requests are run.
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

/// What became of the wish to run a request.
#[derive(Debug)]
pub(crate) enum Ran {
    /// It was run, or there was nothing to run.
    Done,
    /// It is for the worker.
    ForWorker,
    /// Its next attempt is due then.
    RetryAt(Instant),
}

/// Why a request was not run, and stands as before.
#[derive(Debug)]
pub(crate) enum NotClaimed {
    NoTimeLeft,
    Store(StoreError),
}

impl<Q, P, D> Executor<Q, P, D> {
    /// A number from 0 to 1.
    fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn owner_token(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }
}
