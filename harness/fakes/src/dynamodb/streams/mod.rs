//! DynamoDB Streams: records of what changed, in shards, for 24 hours.
//!
//! The items of one partition key share a shard, and within it the records stand in the order of their writes.

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
