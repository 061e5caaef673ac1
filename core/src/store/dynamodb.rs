//! The store's ports on DynamoDB, with one table each for connections, requests and shared rate limits.

mod codec;
#[doc(hidden)]
pub mod connection_item;
mod connections;
mod error;
mod index;
#[doc(hidden)]
pub mod part_item;
#[doc(hidden)]
pub mod rate_limit_item;
mod rate_limits;
#[doc(hidden)]
pub mod request_item;
mod requests;
mod stream_image;
#[cfg(test)]
pub(crate) mod test_answers;
mod write;

#[doc(hidden)]
pub use codec::{Corrupt, Item};
pub use connections::DynamoConnectionStore;
pub use rate_limits::DynamoRateLimits;
pub use requests::{DynamoRequestQueue, QueueSettings};
#[doc(hidden)]
pub use stream_image::{InvalidImage, item_of_image};
