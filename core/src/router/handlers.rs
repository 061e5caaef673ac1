use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use crate::handler::handlers_runtime;

/// The runtime that handlers run on: the one that the router was given, until a handler holds its threads past its time.
#[derive(Debug)]
pub(super) struct Handlers(Mutex<Current>);

#[derive(Debug)]
struct Current {
    handle: Handle,
    /// The runtime itself, where it is a fresh one of ours.
    own: Option<Runtime>,
    /// How many were let go of before it.
    stuck: u32,
}

impl Handlers {
    /// How long a runtime may take to show that it still has a thread.
    const PATIENCE: Duration = Duration::from_millis(100);

    pub(super) fn on(handle: Handle) -> Self {
        Self(Mutex::new(Current { handle, own: None, stuck: 0 }))
    }

    pub(super) fn handle(&self) -> Handle {
        self.lock().handle.clone()
    }

    /// Has later calls run on a fresh runtime, unless the present one runs what it is given: a task that never awaits
    /// cannot be aborted, and would hold up everybody who comes after it.
    ///
    /// Its thread goes on until the task awaits or ends. Nothing bounds how many there may be: each is an `error` in the log.
    pub(super) async fn replace_if_stuck(&self) {
        let (handle, stuck) = {
            let current = self.lock();
            (current.handle.clone(), current.stuck)
        };
        if matches!(timeout(Self::PATIENCE, handle.spawn(async {})).await, Ok(Ok(()))) {
            return;
        }
        let mut current = self.lock();
        if current.stuck != stuck {
            // Another call's timeout has replaced it.
            return;
        }
        match handlers_runtime(1) {
            Ok(fresh) => {
                current.stuck += 1;
                tracing::error!(
                    stuck = current.stuck,
                    "a handler holds its thread past its time: later ones run on a fresh one"
                );
                current.handle = fresh.handle().clone();
                if let Some(old) = current.own.replace(fresh) {
                    old.shutdown_background();
                }
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
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}
