//! A stream of a table.

use streamer::ports::Timestamp;

use super::record::StreamViewType;
use super::sequence_number::SequenceNumber;

/// A stream, as it is kept.
pub(in crate::dynamodb) struct Stream {
    pub(super) id: i64,
    pub(in crate::dynamodb) arn: String,
    pub(super) table: String,
    pub(in crate::dynamodb) label: String,
    pub(in crate::dynamodb) view_type: StreamViewType,
    /// As the table's description has it.
    pub(super) key_schema: String,
    pub(in crate::dynamodb) partition_key: String,
    /// How many it began with.
    pub(super) shards: u16,
    pub(super) created: Timestamp,
    /// When it was disabled, or its table deleted.
    pub(super) closed: Option<Timestamp>,
    /// The last that was given out.
    pub(super) last: SequenceNumber,
}
