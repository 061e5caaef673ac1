//! The reading side of the streams, in process.

use super::error::StreamError;
use super::record::StreamRecord;
use super::sequence_number::SequenceNumber;
use super::shard_id::{ShardId, ShardInfo};
use super::shards::{self, Shard};
use super::store;
use crate::dynamodb::database::DynamoDb;
use crate::watch;

/// The reading side of the streams, in process.
#[derive(Clone, Debug)]
pub struct Streams {
    db: DynamoDb,
}

impl DynamoDb {
    /// The reading side of this database's streams.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams { db: self.clone() }
    }
}

impl Streams {
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
        let stream = store::readable(engine.conn(), stream_arn, engine.now())?;
        Ok(shards::all(engine.conn(), &stream, engine.now())?.into_iter().map(Shard::info).collect())
    }

    /// Splits a shard, as AWS does when a table's partition grows: it is closed, and two children take its items from
    /// now on. Gives the children.
    ///
    /// # Errors
    /// When there is no such stream or shard, the shard is closed, or the database cannot be written.
    pub fn split_shard(&self, stream_arn: &str, shard: &ShardId) -> Result<Vec<ShardId>, StreamError> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now())?;
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

    /// The sequence number to read after in order to see only what is written from now on
    /// (`StartingPosition: LATEST`), also while nothing was written at all; `None` where there is no such shard.
    #[must_use]
    pub fn latest(&self, stream_arn: &str, shard: &ShardId) -> Option<SequenceNumber> {
        let engine = self.db.lock();
        let stream = store::readable(engine.conn(), stream_arn, engine.now()).ok()?;
        shards::by_name(engine.conn(), &stream, shard.as_str(), engine.now()).ok()?;
        Some(stream.last)
    }

    /// Changes whenever a record or a shard may have been added or removed.
    #[must_use]
    #[doc(hidden)]
    pub fn changes(&self) -> watch::Receiver<u64> {
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
