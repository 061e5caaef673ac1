//! The ports on DynamoDB: one table for connections, one for requests, one for shared rate limits.

mod codec;
pub mod connection_item;
mod connections;
mod error;
mod index;
pub mod part_item;
pub mod rate_limit_item;
mod rate_limits;
pub mod request_item;
mod requests;
mod stream_image;
#[cfg(test)]
pub(crate) mod test_answers;
mod write;

pub use codec::{Corrupt, Item};
pub use connections::DynamoConnectionStore;
pub use rate_limits::DynamoRateLimits;
pub use requests::{DynamoRequestQueue, QueueSettings};
pub use stream_image::{InvalidImage, item_of_image};
