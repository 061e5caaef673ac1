use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use super::handlers_runtime;

/// The tokio runtime that handlers run on. It is replaced when handlers that never await block all of its threads.
#[derive(Debug)]
pub struct HandlerRuntime(Mutex<Current>);

#[derive(Debug)]
struct Current {
    handle: Handle,
    /// Replacement runtimes; the last one is in use. Earlier ones are kept, because slow calls may still finish on
    /// them.
    replacements: Vec<Runtime>,
}

impl HandlerRuntime {
    /// How long a runtime may take to run an empty task before it counts as blocked.
    const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

    /// Creates a `HandlerRuntime` that starts with the runtime of `handle`.
    #[must_use]
    pub fn on(handle: Handle) -> Self {
        Self(Mutex::new(Current { handle, replacements: Vec::new() }))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.lock().handle.clone()
    }

    /// Replaces the runtime for later calls if the current one is blocked.
    ///
    /// A runtime is blocked if it does not run an empty task in time. The cause is a handler that never awaits: its
    /// task cannot be aborted, and would delay all later handlers.
    ///
    /// The thread of a blocked runtime stays busy until the task awaits or ends. Until then, background tasks on that
    /// runtime stand still too, such as those that drive a handler's pooled connections. The number of replacements
    /// is not bounded. Each one is logged as an `error`.
    pub(crate) async fn replace_if_blocked(&self) {
        let (handle, replaced) = {
            let current = self.lock();
            (current.handle.clone(), current.replacements.len())
        };
        if matches!(timeout(Self::PROBE_TIMEOUT, handle.spawn(async {})).await, Ok(Ok(()))) {
            return;
        }
        let mut current = self.lock();
        if current.replacements.len() != replaced {
            // Another call has replaced the runtime since the probe began.
            return;
        }
        match handlers_runtime(1) {
            Ok(runtime) => {
                current.handle = runtime.handle().clone();
                current.replacements.push(runtime);
                tracing::error!(
                    stuck = current.replacements.len(),
                    "handler blocks its runtime; later handlers use a new runtime"
                );
            }
            Err(error) => {
                tracing::error!(%error, "handler blocks its runtime; new runtime could not be created");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shuts the runtimes down in the background. Dropping a runtime waits for its threads, and panics in async code.
impl Drop for Current {
    fn drop(&mut self) {
        self.replacements.drain(..).for_each(Runtime::shutdown_background);
    }
}
