//! The stream that an event source mapping reads: the port [`RecordSource`], shards and records.

use std::fmt;

use serde_json::Value;
use streamer::ports::Timestamp;

use crate::watch;

/// A stream and the checkpoints of one event source mapping in this stream.
///
/// Methods block, so an implementation must answer from memory or from an embedded database, without network calls.
pub trait RecordSource: fmt::Debug + Send + Sync {
    /// Returns the stream's shards, each parent before its children.
    ///
    /// # Errors
    /// [`SourceError`] if the stream cannot be read. The mapping retries at its next poll.
    fn shards(&self) -> Result<Vec<Shard>, SourceError>;

    /// Reads at most `limit` records of `shard` in order. The first record is the one after sequence number
    /// `after`, or the shard's oldest record if `after` is `None`.
    ///
    /// # Errors
    /// [`SourceError`] if the shard cannot be read. The mapping retries at its next poll.
    fn read(&self, shard: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, SourceError>;

    /// Returns the sequence number of the newest record of `shard`; `None` if the shard has no record.
    ///
    /// # Errors
    /// [`SourceError`] if the shard cannot be read. The mapping retries at its next poll.
    fn latest(&self, shard: &str) -> Result<Option<String>, SourceError>;

    /// Returns the checkpoint of `shard`: the sequence number up to which all records are processed. `None` if no
    /// checkpoint was saved.
    ///
    /// # Errors
    /// [`SourceError`] if the checkpoint cannot be read. The mapping retries at its next poll.
    fn checkpoint(&self, shard: &str) -> Result<Option<String>, SourceError>;

    /// Saves the checkpoint of `shard`: the sequence number up to which all records are processed.
    ///
    /// # Errors
    /// [`SourceError`] if the checkpoint cannot be saved. The mapping continues, and its next checkpoint covers
    /// these records as well. A restart before the next checkpoint delivers the records again.
    fn save_checkpoint(&self, shard: &str, sequence_number: &str) -> Result<(), SourceError>;

    /// Returns a receiver of a counter that changes whenever shards or records are added or removed.
    ///
    /// A mapping that has found nothing new waits for a change before it polls again. With the default, `None`, the
    /// mapping polls at every interval.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// One shard of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shard {
    /// Id of the shard, such as `shardId-00000001`.
    pub id: String,
    /// Id of the parent shard, whose records precede this shard's records; `None` without a parent. The parent may
    /// no longer exist.
    pub parent: Option<String>,
    /// Whether the shard is closed: no more records will be added to the shard.
    pub closed: bool,
}

/// One record of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Sequence number of the record, which orders the records of a shard.
    pub sequence_number: String,
    /// Time of the write that produced the record. The record's age is measured from this time.
    pub approximate_creation: Timestamp,
    /// The record as JSON, in the form in which the function receives the record in `Records`.
    pub event: Value,
}

impl Record {
    /// Returns the name of the table whose write produced the record; `None` if the record has no valid stream ARN.
    pub(super) fn table(&self) -> Option<&str> {
        table_of(self.event.get("eventSourceARN")?.as_str()?)
    }
}

/// Extracts the table's name from the ARN of the table's stream; `None` if the ARN has another form.
pub(super) fn table_of(stream_arn: &str) -> Option<&str> {
    stream_arn.split(":table/").nth(1)?.split('/').next()
}

/// Error of reading a stream, or of reading or saving a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceError(String);

impl SourceError {
    /// Creates an error with a message that describes the problem.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}
