use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use super::handlers_runtime;

/// The tokio runtime on which handlers run. The runtime is replaced when handlers that never await block all of its
/// threads.
#[derive(Debug)]
pub struct HandlerRuntime(Mutex<Current>);

#[derive(Debug)]
struct Current {
    handle: Handle,
    /// Runtimes that were created to replace blocked runtimes. The last runtime in the list is in use. The
    /// earlier ones are kept, because the handlers that block them may still finish.
    replacements: Vec<Runtime>,
}

impl HandlerRuntime {
    /// Time within which a runtime must run an empty task. A runtime that takes longer counts as blocked.
    const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

    /// Creates a `HandlerRuntime` that starts with the runtime of `handle`.
    #[must_use]
    pub fn on(handle: Handle) -> Self {
        Self(Mutex::new(Current { handle, replacements: Vec::new() }))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.lock().handle.clone()
    }

    /// Creates a new runtime for later calls if the current runtime is blocked.
    ///
    /// A runtime counts as blocked if it does not run an empty task within 100 ms. The cause is a handler that never
    /// awaits. The task of this handler cannot be aborted, and would delay all later handlers.
    ///
    /// A blocked runtime stays blocked until the handler awaits or ends. Until then, the other tasks on that
    /// runtime, such as tasks that serve a handler's pooled connections, make no progress. The number of new
    /// runtimes is not bounded. Each replacement is logged as an `error`.
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
            // Another call has replaced the runtime while this call was testing it.
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

/// Shuts the runtimes down in the background, because dropping a runtime waits for its threads, and panics in async
/// code.
impl Drop for Current {
    fn drop(&mut self) {
        self.replacements.drain(..).for_each(Runtime::shutdown_background);
    }
}
