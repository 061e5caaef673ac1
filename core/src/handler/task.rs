use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tracing::instrument::WithSubscriber as _;

/// A runtime for handlers: with a thread for each that may run at once, none that blocks holds up another.
pub(crate) fn handlers_runtime(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().thread_name("handler").build()
}

/// A handler at work on the handlers' runtime, or other work on a runtime that is not the caller's; dropped, it is
/// stopped, so that nothing is left running for nobody.
pub(crate) struct HandlerTask<T>(JoinHandle<T>);

impl<T: Send + 'static> HandlerTask<T> {
    pub(crate) fn spawn(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        // What it logs goes where its caller's log goes: beyond a test, that is the same for all.
        Self(runtime.spawn(work.with_current_subscriber()))
    }

    /// What came of it; an error is a panic.
    pub(crate) async fn ended(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }

    /// Stops it, unless it has ended, and waits until it has let go of everything.
    pub(crate) async fn stop(&mut self) {
        self.0.abort();
        if !self.0.is_finished() {
            let _ = (&mut self.0).await;
        }
    }
}

impl<T> Drop for HandlerTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
