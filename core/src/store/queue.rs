mod claim;
mod read;
mod run;
mod submit;
mod subscribe;
mod sweep;

pub use claim::{ClaimRequests, Claimed};
pub use read::ReadRequests;
pub use run::{Audience, RunRequests};
pub use submit::{Cancelled, Enqueued, SubmitRequests};
pub use subscribe::{Delivery, SubscribeToRequests, Subscribed, Subscriber};
pub use sweep::{NewStatus, ReclaimVerdict, SweepRequests};

/// The complete store of queued requests: all operations, from enqueueing to delivery.
///
/// This trait combines six traits, one for each kind of caller. A type that implements the six traits implements
/// `RequestQueue` automatically.
pub trait RequestQueue:
    SubmitRequests + ClaimRequests + RunRequests + SweepRequests + SubscribeToRequests + ReadRequests
{
}

impl<Q> RequestQueue for Q where
    Q: SubmitRequests + ClaimRequests + RunRequests + SweepRequests + SubscribeToRequests + ReadRequests
{
}
