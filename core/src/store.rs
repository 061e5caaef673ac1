//! Where connections and requests are kept: two ports, and their adapter on DynamoDB.

mod connection;
pub mod dynamodb;
mod error;
mod page;
mod queue;
mod request;

pub use connection::{Connection, ConnectionStore, Identity};
pub use error::{StoreError, StoreErrorKind};
pub use page::{Cursor, Page, PageRequest, pages};
pub use queue::{Audience, Cancelled, Claimed, Enqueued, NewStatus, RequestQueue};
pub use request::{Ending, Lease, Progress, Request, RequestSummary, Status};
