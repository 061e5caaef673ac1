//! Where connections, requests and shared rate limits are kept: three ports, and their adapter on DynamoDB.
//!
//! Whatever can be long is a list of [pages](Page), to be followed by [`pages`]. What goes wrong is a [`StoreError`],
//! whose [kind](StoreErrorKind) says what to do about it.

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
    Abandoned, Audience, Cancelled, ClaimRequests, Claimed, Delivery, Enqueued, NewStatus, ReadRequests,
    RequestQueue, RunRequests, SubmitRequests, SubscribeToRequests, Subscribed, Subscriber, SweepRequests,
};
pub use rate_limits::{FullAt, Rate, RateLimits, Taken};
pub use request::{
    AttemptOutcome, Ending, LastReport, Lease, PastAttempt, Progress, Request, RequestSummary, Runner, Status,
};
