//! Shard ids, and the properties of a shard that a reader of the stream receives.

use std::fmt;

/// Id of a shard, such as `shardId-00000001704067200000-1a2b3c4d`. Shard ids are unique across all streams.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(String);

impl ShardId {
    /// Creates a shard id from its text.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the text of the shard id.
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

/// Id, parent and state of a shard, as seen by a reader of the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Id of the shard, unique across all streams.
    pub id: ShardId,
    /// Id of the closed shard that this shard succeeds after a split or replacement; `None` for a stream's first
    /// shards.
    ///
    /// The parent's records precede the records of this shard. The parent is dropped 24 hours after it was closed.
    pub parent: Option<ShardId>,
    /// True once the shard receives no more records, because the shard was split or replaced, or the stream was
    /// disabled.
    pub closed: bool,
}
