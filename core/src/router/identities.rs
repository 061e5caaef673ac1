use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::ids::ConnectionId;
use crate::ports::Timestamp;
use crate::store::{Connection, Identity};

/// Cache of the identities of recently active connections, so that a quick request needs no database read.
#[derive(Debug)]
pub(super) struct IdentityCache(Mutex<LruCache<ConnectionId, CachedIdentity>>);

#[derive(Debug)]
struct CachedIdentity {
    identity: Arc<Identity>,
    /// Time at which the connection's record was read.
    read_at: Timestamp,
    /// Last-activity time of the connection: the stored time, or the time of the latest update attempt.
    last_ping: Timestamp,
}

impl IdentityCache {
    /// Maximum number of cached connections; the least recently used entry is evicted.
    const MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
    /// Time after which a cached identity is stale, and the connection's record is read again.
    const MAX_AGE: Duration = Duration::from_mins(5);
    /// Minimum time between two updates of a connection's stored last-activity time.
    const PING_INTERVAL: Duration = Duration::from_mins(1);

    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(Self::MAX)))
    }

    pub(super) fn get(&self, connection: &ConnectionId, now: Timestamp) -> Option<Arc<Identity>> {
        let mut cache = self.lock();
        let cached = cache.get(connection)?;
        (now.since(cached.read_at) < Self::MAX_AGE).then(|| Arc::clone(&cached.identity))
    }

    pub(super) fn insert(&self, connection: Connection, now: Timestamp) -> Arc<Identity> {
        let Connection { id, identity, last_ping, .. } = connection;
        let identity = Arc::new(identity);
        self.lock().put(id, CachedIdentity { identity: Arc::clone(&identity), read_at: now, last_ping });
        identity
    }

    pub(super) fn remove(&self, connection: &ConnectionId) {
        self.lock().pop(connection);
    }

    /// Returns whether the connection's stored last-activity time must be updated now, and if so, marks it as
    /// updated.
    ///
    /// A failed update is not repeated. The next update is due with the connection's first message after one
    /// more minute.
    pub(super) fn mark_ping_if_due(&self, connection: &ConnectionId, now: Timestamp) -> bool {
        let mut cache = self.lock();
        let Some(cached) = cache.get_mut(connection) else { return false };
        let is_due = now.since(cached.last_ping) >= Self::PING_INTERVAL;
        if is_due {
            cached.last_ping = now;
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ConnectionId, CachedIdentity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
