use std::fmt;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use super::{Call, Reply};

/// A tower service that a layer may create. Its request is a [`Call`], and its response is a [`Reply`].
///
/// The trait is implemented for every service that meets the bounds. The service's error must convert into
/// [`BoxError`]. The service must be `Clone`, because each call runs on a clone of the service.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service of calls",
    label = "the layer makes a service of this type",
    note = "a layer's service must be `Service<Call, Response = Reply> + Clone + Send + Sync`, with an error that is \
            `Into<BoxError>` and a future that is `Send`"
)]
pub trait Step:
    Service<Call, Response = Reply, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> Step for S where
    S: Service<Call, Response = Reply, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The inner services that a layer wraps: all layers inside this layer, and the handler.
#[derive(Clone)]
pub struct Next(BoxCloneSyncService<Call, Reply, BoxError>);

impl Next {
    /// Wraps `service` as the inner services of a layer, for example a stub in a test of the layer.
    pub fn new(service: impl Step) -> Self {
        Self(BoxCloneSyncService::new(service.map_err(Into::into)))
    }

    /// Runs a call through the inner services, after waiting until they are ready.
    ///
    /// # Errors
    /// The error of the inner layer or handler that failed.
    pub async fn run(self, call: Call) -> Result<Reply, BoxError> {
        self.0.oneshot(call).await
    }
}

impl Service<Call> for Next {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        self.0.call(call)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}
