use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use super::handlers_runtime;

/// The runtime that handlers run on: the one that was given, until a handler holds its threads past its time.
#[derive(Debug)]
pub struct HandlerRuntime(Mutex<Current>);

#[derive(Debug)]
struct Current {
    handle: Handle,
    /// The fresh runtimes, the last of which is the present one. Those before it are kept: calls that were only slow may
    /// still end there.
    fresh: Vec<Runtime>,
}

impl HandlerRuntime {
    /// How long a runtime may take to show that it still has a thread.
    const PATIENCE: Duration = Duration::from_millis(100);

    /// Handlers run on the runtime that `handle` belongs to.
    #[must_use]
    pub fn on(handle: Handle) -> Self {
        Self(Mutex::new(Current { handle, fresh: Vec::new() }))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.lock().handle.clone()
    }

    /// Has later calls run on a fresh runtime, unless the present one runs what it is given: a task that never awaits
    /// cannot be aborted, and would hold up everybody who comes after it.
    ///
    /// Its thread goes on until the task awaits or ends, and with it stands still what a handler's own clients drive there,
    /// such as pooled connections. Nothing bounds how many there may be: each is an `error` in the log.
    pub(crate) async fn replace_if_stuck(&self) {
        let (handle, stuck) = {
            let current = self.lock();
            (current.handle.clone(), current.fresh.len())
        };
        if matches!(timeout(Self::PATIENCE, handle.spawn(async {})).await, Ok(Ok(()))) {
            return;
        }
        let mut current = self.lock();
        if current.fresh.len() != stuck {
            // Another call's timeout has replaced it.
            return;
        }
        match handlers_runtime(1) {
            Ok(fresh) => {
                current.handle = fresh.handle().clone();
                current.fresh.push(fresh);
                tracing::error!(
                    stuck = current.fresh.len(),
                    "a handler holds its thread past its time: later ones run on a fresh one"
                );
            }
            Err(error) => {
                tracing::error!(%error, "a handler holds its thread past its time, and there is no other to be had");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime that is dropped waits for its threads, and must not be where a router is.
impl Drop for Current {
    fn drop(&mut self) {
        self.fresh.drain(..).for_each(Runtime::shutdown_background);
    }
}
