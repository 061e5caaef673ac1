use tower::{Layer, service_fn};

use super::{Call, Next, Phase, Step};

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
        // Always ready: which way to wait for shows with the call.
        Next::new(service_fn(move |call: Call| {
            let next = match call.phase {
                Phase::Routing(_) => &routing,
                Phase::Processing => &processing,
            };
            next.clone().run(call)
        }))
    }
}
