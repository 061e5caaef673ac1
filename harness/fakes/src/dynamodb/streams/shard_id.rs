//! What a reader knows of a shard.

use std::fmt;

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
