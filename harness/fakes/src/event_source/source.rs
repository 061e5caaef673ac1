//! What a mapping reads from.

use std::fmt;

use serde_json::Value;
use streamer::ports::Timestamp;

use crate::watch;

/// A stream, as far as a mapping has to know it, with the place to keep what has been read.
///
/// Every call answers from memory or from an embedded database: none may wait for a network.
pub trait RecordSource: fmt::Debug + Send + Sync {
    /// The stream's shards, parents before their children.
    ///
    /// # Errors
    /// When the stream cannot be read; it is asked again at the next poll.
    fn shards(&self) -> Result<Vec<Shard>, SourceError>;

    /// At most `limit` records of `shard` in order, from the one after `after` or from the oldest.
    ///
    /// # Errors
    /// When the stream cannot be read; it is asked again at the next poll.
    fn read(&self, shard: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, SourceError>;

    /// The sequence number of the newest record of `shard`, if it has any.
    ///
    /// # Errors
    /// When the stream cannot be read; it is asked again at the next poll.
    fn latest(&self, shard: &str) -> Result<Option<String>, SourceError>;

    /// The sequence number up to which `shard` is done, if anything of it is.
    ///
    /// # Errors
    /// When it cannot be read; it is asked again at the next poll.
    fn checkpoint(&self, shard: &str) -> Result<Option<String>, SourceError>;

    /// Keeps the sequence number up to which `shard` is done.
    ///
    /// # Errors
    /// When it cannot be kept. The mapping goes on: a later checkpoint makes up for it, and a restart before
    /// that delivers the records again.
    fn save_checkpoint(&self, shard: &str, sequence_number: &str) -> Result<(), SourceError>;

    /// What changes whenever a shard or a record may have come or gone. A mapping that has found nothing new waits for it
    /// before it looks again; a source that cannot tell, as by default, is asked at every poll.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// One shard of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shard {
    /// Its id.
    pub id: String,
    /// The shard that was split into this one and others, whose records come before these. It may be gone already.
    pub parent: Option<String>,
    /// Whether no record will be added to it any more.
    pub closed: bool,
}

/// One record of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place in its shard.
    pub sequence_number: String,
    /// When the write happened, which record age is reckoned from.
    pub approximate_creation: Timestamp,
    /// The record as a function sees it in `Records`.
    pub event: Value,
}

impl Record {
    /// The table that was written to.
    pub(super) fn table(&self) -> Option<&str> {
        table_of(self.event.get("eventSourceARN")?.as_str()?)
    }
}

/// The table whose stream has this ARN.
pub(super) fn table_of(stream_arn: &str) -> Option<&str> {
    stream_arn.split(":table/").nth(1)?.split('/').next()
}

/// Why a stream could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceError(String);

impl SourceError {
    /// An error that says what went wrong.
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
