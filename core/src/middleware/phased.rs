use tower::{Layer, service_fn};

use super::{Call, Next, Phase, Step};

/// Applies a layer only in the router. Use this function for load shedding, which would make queued requests fail in
/// the processor.
pub const fn when_routing<L>(layer: L) -> InPhase<L> {
    InPhase { layer, routing: true }
}

/// Applies a layer only in the processor and the worker, around each attempt of a queued request. Use this function
/// for a timeout that is longer than the router's.
pub const fn when_processing<L>(layer: L) -> InPhase<L> {
    InPhase { layer, routing: false }
}

/// A layer that applies in one [`Phase`] only, created by [`when_routing`] or [`when_processing`].
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
        // `service_fn` is always ready. The phase of a call decides which service the call needs, and `run`
        // waits until that service is ready.
        Next::new(service_fn(move |call: Call| {
            let next = match call.phase {
                Phase::Routing(_) => &routing,
                Phase::Processing => &processing,
            };
            next.clone().run(call)
        }))
    }
}
