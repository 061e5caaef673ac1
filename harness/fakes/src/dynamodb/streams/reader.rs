//! Reads streams directly from the database in this process, without the DynamoDB Streams API.

use super::error::StreamError;
use super::record::StreamRecord;
use super::sequence_number::SequenceNumber;
use super::shard_id::{ShardId, ShardInfo};
use super::shards::{self, Shard};
use super::store;
use crate::dynamodb::database::DynamoDb;
use crate::watch;

/// Reads and splits the shards of a database's streams, directly in this process.
#[derive(Clone, Debug)]
pub struct Streams {
    db: DynamoDb,
}

impl DynamoDb {
    /// Returns a handle for reading this database's streams directly. The event source mapping uses this handle.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams { db: self.clone() }
    }
}

impl Streams {
    /// Returns the ARN of the table's enabled stream; `None` if the table has no enabled stream.
    #[must_use]
    pub fn latest_stream_arn(&self, table: &str) -> Option<String> {
        store::open_stream_of(self.db.lock().conn(), table).ok().flatten().map(|stream| stream.arn)
    }

    /// Returns the ids of a stream's shards, parents before their children.
    ///
    /// # Errors
    /// [`StreamError`] if the stream does not exist, or if the database cannot be read.
    pub fn shards(&self, stream_arn: &str) -> Result<Vec<ShardId>, StreamError> {
        Ok(self.shard_infos(stream_arn)?.into_iter().map(|shard| shard.id).collect())
    }

    /// Returns the id, parent and state of each of a stream's shards, parents before their children.
    ///
    /// # Errors
    /// [`StreamError`] if the stream does not exist, or if the database cannot be read.
    pub fn shard_infos(&self, stream_arn: &str) -> Result<Vec<ShardInfo>, StreamError> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now())?;
        Ok(shards::all(engine.conn(), &stream, engine.now())?.into_iter().map(Shard::info).collect())
    }

    /// Splits a shard, as AWS does when a table's partition grows. The shard is closed, and two child shards receive
    /// all later records of its items. Returns the ids of the children.
    ///
    /// # Errors
    /// [`StreamError`] if the stream or shard does not exist, the shard is closed, or the database cannot be written.
    pub fn split_shard(&self, stream_arn: &str, shard: &ShardId) -> Result<Vec<ShardId>, StreamError> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now())?;
        let shard = shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now())?;
        let children = shards::split(engine.conn(), &stream, &shard, engine.now())?;
        Ok(children.into_iter().map(|child| child.id).collect())
    }

    /// Returns at most `limit` records of a shard, oldest first. Starts after the sequence number `after`, or at the
    /// shard's oldest record if `after` is `None`.
    ///
    /// # Errors
    /// [`StreamError`] if the stream or shard does not exist, or if the database cannot be read.
    pub fn read(
        &self,
        stream_arn: &str,
        shard: &ShardId,
        after: Option<&SequenceNumber>,
        limit: usize,
    ) -> Result<Vec<StreamRecord>, StreamError> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now())?;
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

    /// Returns the sequence number after which a reader sees only records written from now on
    /// (`StartingPosition: LATEST`). `None` if the stream or shard does not exist.
    ///
    /// A stream without records also has a latest sequence number.
    #[must_use]
    pub fn latest(&self, stream_arn: &str, shard: &ShardId) -> Option<SequenceNumber> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now()).ok()?;
        shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now()).ok()?;
        Some(stream.last)
    }

    /// Returns a watch whose value changes whenever a record or shard may have been added or removed.
    #[must_use]
    #[doc(hidden)]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.db.changes.subscribe()
    }

    /// Returns the saved checkpoint of the event source mapping `mapping` in a shard: the sequence number up to which
    /// the mapping has processed the shard. `None` if no checkpoint was saved.
    ///
    /// # Errors
    /// [`StreamError`] if the database cannot be read.
    pub fn checkpoint(&self, mapping: &str, shard: &ShardId) -> Result<Option<SequenceNumber>, StreamError> {
        Ok(store::checkpoint(self.db.lock().conn(), mapping, shard.as_str())?)
    }

    /// Saves the sequence number up to which the event source mapping `mapping` has processed a shard.
    ///
    /// A database in a folder keeps the checkpoint across restarts.
    ///
    /// # Errors
    /// [`StreamError`] if the database cannot be written.
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
