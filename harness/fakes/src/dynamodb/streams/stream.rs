//! A stream of a table, as stored in SQLite.

use streamer::ports::Timestamp;

use super::record::StreamViewType;
use super::sequence_number::SequenceNumber;

/// A table's stream, as stored in SQLite.
pub(in crate::dynamodb) struct Stream {
    pub(super) id: i64,
    pub(in crate::dynamodb) arn: String,
    pub(super) table: String,
    pub(in crate::dynamodb) label: String,
    pub(in crate::dynamodb) view_type: StreamViewType,
    /// The table's key schema as JSON, in the format of `DescribeTable`.
    pub(super) key_schema: String,
    pub(in crate::dynamodb) partition_key: String,
    /// Number of shards with which the stream was created.
    pub(super) shards: u16,
    pub(super) created: Timestamp,
    /// Time at which the stream was disabled or its table deleted; `None` while the stream is enabled.
    pub(super) closed: Option<Timestamp>,
    /// Highest sequence number assigned in the stream.
    pub(super) last: SequenceNumber,
}
