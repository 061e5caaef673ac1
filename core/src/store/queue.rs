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
pub use sweep::{Abandoned, NewStatus, SweepRequests};

/// Where requests wait, are claimed, and end: the sum of what each of their users needs.
///
/// Implement the six traits that it is made of; this one follows.
pub trait RequestQueue:
    SubmitRequests + ClaimRequests + RunRequests + SweepRequests + SubscribeToRequests + ReadRequests
{
}

impl<Q> RequestQueue for Q where
    Q: SubmitRequests + ClaimRequests + RunRequests + SweepRequests + SubscribeToRequests + ReadRequests
{
}
