use std::sync::Arc;

use tower::Layer;

use super::around::Around;
use super::{Call, Next, Phase, Step};

/// A layer that rejects the messages of users who lack a permission, with the error `FORBIDDEN`.
///
/// The permission is checked only in the router, when a message arrives. It is not checked again when a queued
/// request runs. To require a permission for a single handler, use
/// [`Handler::required_permission`](crate::handler::Handler::required_permission).
#[derive(Clone, Debug)]
pub struct RequirePermission(Arc<str>);

impl RequirePermission {
    /// Creates a layer that requires `permission`.
    pub fn new(permission: impl Into<Arc<str>>) -> Self {
        Self(permission.into())
    }
}

impl<S: Step> Layer<S> for RequirePermission {
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        let permission = Arc::clone(&self.0);
        let check = move |call: Call, next: Next| {
            let granted = match &call.phase {
                Phase::Routing(routing) => routing.require(&permission),
                Phase::Processing => Ok(()),
            };
            async move {
                granted?;
                next.run(call).await
            }
        };
        Around::step(Arc::new(check), inner)
    }
}
