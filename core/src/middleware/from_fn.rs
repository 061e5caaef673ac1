use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::{BoxError, Layer, Service};

use super::{Call, Next, Reply, Step};

/// Makes a layer of an async function of a call and the rest of its way.
///
/// ```
/// use streamer::middleware::{BoxError, Call, CallError, Next, Reply, from_fn};
/// use streamer::protocol::{ErrorBody, ErrorCode};
///
/// async fn closed_for_the_weekend(call: Call, next: Next) -> Result<Reply, BoxError> {
///     if call.context.tenant.as_str() == "acme" {
///         let told = ErrorBody::new(ErrorCode::Forbidden, "acme is closed until Monday");
///         return Err(CallError::refused(told).into());
///     }
///     next.run(call).await
/// }
///
/// # let mut app = streamer::app::App::new();
/// app.layer(from_fn(closed_for_the_weekend));
/// ```
pub fn from_fn<F, Fut>(function: F) -> FromFn<F>
where
    F: Fn(Call, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
{
    FromFn(Arc::new(function))
}

/// An async function as a layer: see [`from_fn`].
pub struct FromFn<F>(Arc<F>);

impl<F> Clone for FromFn<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FromFn({})", std::any::type_name::<F>())
    }
}

impl<F, S: Step> Layer<S> for FromFn<F> {
    type Service = FromFnService<F>;

    fn layer(&self, inner: S) -> Self::Service {
        FromFnService { function: Arc::clone(&self.0), next: Next::new(inner) }
    }
}

/// The service of [`from_fn`]'s layer.
pub struct FromFnService<F> {
    function: Arc<F>,
    next: Next,
}

impl<F> Clone for FromFnService<F> {
    fn clone(&self) -> Self {
        Self { function: Arc::clone(&self.function), next: self.next.clone() }
    }
}

impl<F> fmt::Debug for FromFnService<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FromFnService({})", std::any::type_name::<F>())
    }
}

impl<F, Fut> Service<Call> for FromFnService<F>
where
    F: Fn(Call, Next) -> Fut,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
{
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    /// Always ready: the function itself waits for the rest, if it asks it at all.
    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin((self.function)(call, self.next.clone()))
    }
}
