use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::{BoxError, Layer, Service};

use super::{Call, Next, Phase, Reply, Step};

/// Refuses, with `FORBIDDEN`, whoever lacks a permission.
///
/// It is asked for when the message comes: what has been queued is run. For one handler alone,
/// [`Handler::required_permission`](crate::handler::Handler::required_permission) does the same.
#[derive(Clone, Debug)]
pub struct RequirePermission(Arc<str>);

impl RequirePermission {
    /// Asks for this permission.
    pub fn new(permission: impl Into<Arc<str>>) -> Self {
        Self(permission.into())
    }
}

impl<S: Step> Layer<S> for RequirePermission {
    type Service = RequirePermissionService;

    fn layer(&self, inner: S) -> RequirePermissionService {
        RequirePermissionService { permission: Arc::clone(&self.0), next: Next::new(inner) }
    }
}

/// The service of [`RequirePermission`].
#[derive(Clone, Debug)]
pub struct RequirePermissionService {
    permission: Arc<str>,
    next: Next,
}

impl Service<Call> for RequirePermissionService {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if let Phase::Routing(routing) = &call.phase
            && let Err(refused) = routing.require(&self.permission)
        {
            return Box::pin(std::future::ready(Err(refused.into())));
        }
        self.next.call(call)
    }
}
