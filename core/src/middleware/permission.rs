use std::sync::Arc;

use tower::Layer;

use super::around::Around;
use super::{Call, Next, Phase, Step};

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
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        let permission = Arc::clone(&self.0);
        let required = move |call: Call, next: Next| {
            let granted = match &call.phase {
                Phase::Routing(routing) => routing.require(&permission),
                Phase::Processing => Ok(()),
            };
            async move {
                granted?;
                next.run(call).await
            }
        };
        Around::step(Arc::new(required), inner)
    }
}
