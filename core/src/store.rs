//! Storage of connections, requests and shared rate limits: three ports (traits), and their implementations on
//! DynamoDB.
//!
//! Operations that list entries return one [`Page`] per call; [`pages`] reads a whole list as a stream. Operations fail
//! with a [`StoreError`], whose [kind](StoreErrorKind) determines how the caller reacts.

mod connection;
pub mod dynamodb;
mod error;
mod page;
mod queue;
mod rate_limits;
mod request;

pub use connection::{Connection, ConnectionStore, Identity};
pub use error::{StoreError, StoreErrorKind};
pub use page::{Cursor, Page, PageRequest, pages};
pub use queue::{
    Audience, Cancelled, ClaimRequests, Claimed, Delivery, Enqueued, NewStatus, ReadRequests, ReclaimVerdict,
    RequestQueue, RunRequests, SubmitRequests, SubscribeToRequests, Subscribed, Subscriber, SweepRequests,
};
pub use rate_limits::{FullAt, Rate, RateLimits, Taken};
pub use request::{
    AttemptOutcome, Ending, LastReport, Lease, PastAttempt, Progress, Request, RequestSummary, Runner, Status,
};
