//! DynamoDB Streams: records of what changed, in shards, for 24 hours.
//!
//! The items of one partition key share a shard, and within it the records stand in the order of their writes.

pub(super) mod api;
mod iterator;
mod record;
mod shards;
pub(super) mod store;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::DynamoDb;
use super::engine::Engine;
pub use record::{EventName, StreamRecord, StreamViewType, UserIdentity};
use shards::Shard;
use store::Stream;

use crate::watch;

/// How long a stream keeps its records, and how long a disabled stream can still be read.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The reading side of the streams, in process.
#[derive(Clone, Debug)]
pub struct Streams {
    db: DynamoDb,
}

impl Streams {
    pub(super) fn new(db: DynamoDb) -> Self {
        Self { db }
    }

    /// The ARN of the stream that `table` has now, if it has one.
    #[must_use]
    pub fn latest_stream_arn(&self, table: &str) -> Option<String> {
        store::open_stream_of(self.db.lock().conn(), table).ok().flatten().map(|stream| stream.arn)
    }

    /// The shards of a stream, parents before their children.
    ///
    /// # Errors
    /// When there is no such stream, or the database cannot be read.
    pub fn shards(&self, stream_arn: &str) -> Result<Vec<ShardId>, StreamError> {
        Ok(self.shard_infos(stream_arn)?.into_iter().map(|shard| shard.id).collect())
    }

    /// The shards of a stream, parents before their children, with what a reader has to know of each.
    ///
    /// # Errors
    /// When there is no such stream, or the database cannot be read.
    pub fn shard_infos(&self, stream_arn: &str) -> Result<Vec<ShardInfo>, StreamError> {
        let engine = self.db.lock();
        let stream = stream(&engine, stream_arn)?;
        Ok(shards::all(engine.conn(), &stream, engine.now())?.into_iter().map(Shard::info).collect())
    }

    /// Splits a shard, as AWS does when a table's partition grows: it is closed, and two children take its items from
    /// now on. Gives the children.
    ///
    /// # Errors
    /// When there is no such stream or shard, the shard is closed, or the database cannot be written.
    pub fn split_shard(&self, stream_arn: &str, shard: &ShardId) -> Result<Vec<ShardId>, StreamError> {
        let engine = self.db.lock();
        let stream = stream(&engine, stream_arn)?;
        let shard = shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now())?;
        let children = shards::split(engine.conn(), &stream, &shard, engine.now())?;
        Ok(children.into_iter().map(|child| child.id).collect())
    }

    /// At most `limit` records of a shard, oldest first: those after the sequence number `after`, or from the
    /// oldest on.
    ///
    /// # Errors
    /// When there is no such stream or shard, or the database cannot be read.
    pub fn read(
        &self,
        stream_arn: &str,
        shard: &ShardId,
        after: Option<&SequenceNumber>,
        limit: usize,
    ) -> Result<Vec<StreamRecord>, StreamError> {
        let engine = self.db.lock();
        let stream = stream(&engine, stream_arn)?;
        let shard = shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now())?;
        store::trim(engine.conn(), &stream, shard.number, engine.now())?;
        Ok(store::read(
            engine.conn(),
            &stream,
            shard.number,
            after.copied().unwrap_or_default(),
            limit,
            &engine.settings().region,
        )?)
    }

    /// The sequence number to read after in order to see only what is written from now on
    /// (`StartingPosition: LATEST`), also while nothing was written at all; `None` where there is no such shard.
    #[must_use]
    pub fn latest(&self, stream_arn: &str, shard: &ShardId) -> Option<SequenceNumber> {
        let engine = self.db.lock();
        let stream = stream(&engine, stream_arn).ok()?;
        shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now()).ok()?;
        Some(stream.last)
    }

    /// What changes whenever a record or a shard may have come or gone.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.db.changes.subscribe()
    }

    /// How far the event source mapping `mapping` has come in a shard.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn checkpoint(&self, mapping: &str, shard: &ShardId) -> Result<Option<SequenceNumber>, StreamError> {
        Ok(store::checkpoint(self.db.lock().conn(), mapping, shard.as_str())?)
    }

    /// Remembers how far the event source mapping `mapping` has come in a shard; a database in a folder still
    /// knows it when it is opened again.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_checkpoint(
        &self,
        mapping: &str,
        shard: &ShardId,
        sequence_number: &SequenceNumber,
    ) -> Result<(), StreamError> {
        let engine = self.db.lock();
        store::save_checkpoint(engine.conn(), mapping, shard.as_str(), *sequence_number)?;
        engine.skip_notification();
        Ok(())
    }
}

/// The position of a record in its stream: written as 21 digits, so that the order of the texts is that of the
/// numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// What the first of all is written as; it has 21 digits, and so have all after it.
    const OFFSET: u128 = 100_000_000_000_000_000_000;

    fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Self::OFFSET + u128::from(self.0))
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 21 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u128>().ok().filter(|_| digits);
        let number = number.and_then(|number| number.checked_sub(Self::OFFSET));
        number.and_then(|n| u64::try_from(n).ok()).map(Self).ok_or(InvalidSequenceNumber)
    }
}

/// A text that is no sequence number of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidSequenceNumber;

impl fmt::Display for InvalidSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence number has 21 digits and is at least 100000000000000000000")
    }
}

impl std::error::Error for InvalidSequenceNumber {}

/// The name of a shard, unique among all streams.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(String);

impl ShardId {
    /// The shard of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard, as its reader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Its name.
    pub id: ShardId,
    /// The shard that was split into this one and others: its records come before these. It may be gone already.
    pub parent: Option<ShardId>,
    /// Whether no record will be added to it any more: it was split, or its stream is disabled.
    pub closed: bool,
}

/// Why a stream could not be read.
#[derive(Debug)]
pub struct StreamError {
    kind: StreamErrorKind,
    message: String,
}

/// What to do about a stream that could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// There is no such stream or shard, or no longer: ask for the table's latest stream.
    NotFound,
    /// The shard is closed: it takes no more records, and cannot be split.
    Closed,
    /// The database cannot be read or written: give up.
    Database,
}

impl StreamError {
    fn not_found(message: String) -> Self {
        Self { kind: StreamErrorKind::NotFound, message }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StreamError {}

impl From<rusqlite::Error> for StreamError {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            kind: StreamErrorKind::Database,
            message: format!("the streams cannot be read or written: {error}"),
        }
    }
}

/// The stream of an ARN, if it is there and not disabled for longer than its records are kept.
fn stream(engine: &Engine, arn: &str) -> Result<Stream, StreamError> {
    let now = engine.now();
    store::stream_by_arn(engine.conn(), arn)?
        .filter(|stream| stream.closed.is_none_or(|closed| now.since(closed) < RETENTION))
        .ok_or_else(|| {
            StreamError::not_found(format!("Requested resource not found: Stream: {arn} not found"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_have_21_digits_and_sort_as_texts_do() {
        let (nine, ten) = (SequenceNumber(9), SequenceNumber(10));
        assert_eq!(nine.to_string(), "100000000000000000009");
        assert!(nine < ten && nine.to_string() < ten.to_string());
        assert_eq!(SequenceNumber(u64::MAX).to_string().len(), 21);
        assert_eq!(ten.to_string().parse(), Ok(ten));
        for text in
            ["", "10", "abc", "000000000000000000000", "+00000000000000000010", "999999999999999999999"]
        {
            assert_eq!(text.parse::<SequenceNumber>(), Err(InvalidSequenceNumber), "{text}");
        }
    }
}
