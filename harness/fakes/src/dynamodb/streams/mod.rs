//! DynamoDB Streams: records of item changes, kept in shards for 24 hours.
//!
//! All items with the same partition key share a shard. The records of a shard are in the order of the writes.

pub(super) mod api;
mod error;
mod iterator;
mod reader;
mod record;
mod sequence_number;
mod shard_id;
mod shards;
mod sql;
pub(super) mod store;
pub(super) mod stream;

pub use error::{StreamError, StreamErrorKind};
pub use reader::Streams;
pub use record::{EventName, StreamRecord, StreamViewType, UserIdentity};
pub use sequence_number::SequenceNumber;
pub use shard_id::{ShardId, ShardInfo};
