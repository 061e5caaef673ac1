use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::{BoxError, Service};

use super::{Call, Next, Reply, Step};

/// A service that passes each call to a function, together with the inner services as a [`Next`].
pub(super) struct Around<F> {
    function: Arc<F>,
    next: Next,
}

impl<F, Fut> Around<F>
where
    F: Fn(Call, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
{
    pub(super) fn step(function: Arc<F>, inner: impl Step) -> Next {
        Next::new(Self { function, next: Next::new(inner) })
    }
}

impl<F> Clone for Around<F> {
    fn clone(&self) -> Self {
        Self { function: Arc::clone(&self.function), next: self.next.clone() }
    }
}

impl<F, Fut> Service<Call> for Around<F>
where
    F: Fn(Call, Next) -> Fut,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
{
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    /// The service is ready when the inner services are ready, so that an outer load-shedding layer notices that an
    /// inner layer has no capacity.
    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        // The function receives the service that `poll_ready` has made ready, not its clone, which may not be ready.
        let clone = self.next.clone();
        Box::pin((self.function)(call, mem::replace(&mut self.next, clone)))
    }
}
