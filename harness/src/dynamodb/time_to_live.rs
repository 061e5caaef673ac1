//! Time to live, on the stage's clock.

use std::fmt;

use super::error::ApiError;
use super::{DynamoDb, outbox, streams};

impl DynamoDb {
    /// Deletes the items whose time-to-live attribute lies before the clock's now, and drops what streams keep
    /// for longer than 24 hours; gives the number of items deleted.
    ///
    /// Each deletion is a `REMOVE` record with the `userIdentity` of the service. DynamoDB does this by itself
    /// "within a few days"; here whoever owns the clock says when.
    ///
    /// # Errors
    /// When the database cannot be written; what was deleted until then stays deleted.
    pub fn sweep_expired(&self) -> Result<usize, SweepError> {
        let engine = self.lock();
        let swept = pollster::block_on(dynoxide::ttl::sweep_expired_items(engine.storage()));
        outbox::take(&engine).map_err(SweepError)?;
        streams::store::trim_all(engine.conn(), engine.now(), engine.settings().shard_lifetime)
            .map_err(|error| SweepError(error.into()))?;
        swept.map_err(|error| SweepError(error.into()))
    }
}

/// Why a sweep stopped before its end: the database could not be read or written.
#[derive(Debug)]
pub struct SweepError(ApiError);

impl fmt::Display for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the expired items could not all be deleted: {}", self.0)
    }
}

impl std::error::Error for SweepError {}
