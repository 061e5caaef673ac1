use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tower::{BoxError, Layer};

use super::around::Around;
use super::{Call, Next, Reply, Step};

/// Creates a layer from an async function of a [`Call`] and the inner services, a [`Next`].
///
/// The function either runs the inner services with [`Next::run`], or returns a reply or an error without running
/// them.
///
/// ```
/// use streamer::middleware::{BoxError, Call, CallError, Next, Reply, from_fn};
/// use streamer::protocol::{ErrorBody, ErrorCode};
///
/// async fn close_for_the_weekend(call: Call, next: Next) -> Result<Reply, BoxError> {
///     if call.context.tenant.as_str() == "acme" {
///         let error = ErrorBody::new(ErrorCode::Forbidden, "acme is closed until Monday");
///         return Err(CallError::refused(error).into());
///     }
///     next.run(call).await
/// }
///
/// # let mut app = streamer::app::App::new();
/// app.layer(from_fn(close_for_the_weekend));
/// ```
pub fn from_fn<F, Fut>(function: F) -> FromFn<F>
where
    F: Fn(Call, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
{
    FromFn(Arc::new(function))
}

/// A layer that calls an async function, created by [`from_fn`].
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

impl<F, Fut, S> Layer<S> for FromFn<F>
where
    F: Fn(Call, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, BoxError>> + Send + 'static,
    S: Step,
{
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        Around::step(Arc::clone(&self.0), inner)
    }
}
