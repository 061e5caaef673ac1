use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tracing::instrument::WithSubscriber as _;

/// Creates a tokio runtime for handlers. If there is one thread per concurrent handler, a handler that blocks its
/// thread does not delay other handlers.
pub(crate) fn handlers_runtime(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().thread_name("handler").build()
}

/// A task that runs on a given runtime, such as a handler on the handlers' runtime. The task is aborted when the
/// `HandlerTask` is dropped.
pub(crate) struct HandlerTask<T>(JoinHandle<T>);

impl<T: Send + 'static> HandlerTask<T> {
    pub(crate) fn spawn(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        // The task logs to the `tracing` subscriber of its caller, because each test sets its own subscriber.
        Self(runtime.spawn(work.with_current_subscriber()))
    }

    /// Waits until the task ends, and returns its result, or an error if the task panicked.
    pub(crate) async fn ended(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }

    /// Aborts the task unless it has ended. Then waits until the task has released all its resources.
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
