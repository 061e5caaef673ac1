use std::fmt;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use super::{Call, Reply};

/// A service that can stand on a call's way: any that answers a [`Call`] with a [`Reply`], or with an error that can
/// be boxed, and can be cloned for each call.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand on a call's way",
    label = "the layer makes this service",
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

/// The rest of a call's way: the layers further in, and the handler. It is what layers wrap.
#[derive(Clone)]
pub struct Next(BoxCloneSyncService<Call, Reply, BoxError>);

impl Next {
    /// A way that ends with `service`, whatever that does.
    pub fn new(service: impl Step) -> Self {
        Self(BoxCloneSyncService::new(service.map_err(Into::into)))
    }

    /// Hands a call on, once there is room for it.
    ///
    /// # Errors
    /// That of the layer or the handler that failed.
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
