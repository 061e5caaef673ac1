use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use tower::{BoxError, Layer, Service};

use super::{Call, Next, Phase, Reply, Step};

/// Has a layer see calls at the router alone: one that sheds load, say, which would end a queued request.
pub const fn when_routing<L>(layer: L) -> InPhase<L> {
    InPhase { layer, routing: true }
}

/// Has a layer see calls at the processor alone: a longer timeout, say, than the router's.
pub const fn when_processing<L>(layer: L) -> InPhase<L> {
    InPhase { layer, routing: false }
}

/// A layer of one phase: see [`when_routing`] and [`when_processing`].
#[derive(Clone, Copy, Debug)]
pub struct InPhase<L> {
    layer: L,
    routing: bool,
}

impl<L, S> Layer<S> for InPhase<L>
where
    L: Layer<Next, Service: Step>,
    S: Step,
{
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        let next = Next::new(inner);
        let within = Next::new(self.layer.layer(next.clone()));
        let (routing, processing) = if self.routing { (within, next) } else { (next, within) };
        Next::new(ByPhase { routing, processing })
    }
}

#[derive(Clone)]
struct ByPhase {
    routing: Next,
    processing: Next,
}

impl Service<Call> for ByPhase {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    /// Always ready: which way to wait for shows with the call.
    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let next = match call.phase {
            Phase::Routing(_) => self.routing.clone(),
            Phase::Processing => self.processing.clone(),
        };
        Box::pin(next.run(call))
    }
}
