use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::ids::ConnectionId;
use crate::ports::Timestamp;
use crate::store::{Connection, Identity};

/// Who is behind the connections that were heard of lately, so that quick requests need no read.
#[derive(Debug)]
pub(super) struct Identities(Mutex<LruCache<ConnectionId, Known>>);

#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    since: Timestamp,
    last_ping: Timestamp,
}

impl Identities {
    /// How many are remembered.
    const MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
    /// After how long one is read anew.
    const MAX_AGE: Duration = Duration::from_mins(5);
    /// The least time between two signs of life of a connection that are noted.
    const PING_INTERVAL: Duration = Duration::from_mins(1);

    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(Self::MAX)))
    }

    pub(super) fn get(&self, connection: &ConnectionId, now: Timestamp) -> Option<Arc<Identity>> {
        let mut known = self.lock();
        let known = known.get(connection)?;
        (now.since(known.since) < Self::MAX_AGE).then(|| Arc::clone(&known.identity))
    }

    pub(super) fn remember(&self, connection: Connection, now: Timestamp) -> Arc<Identity> {
        let Connection { id, identity, last_ping, .. } = connection;
        let identity = Arc::new(identity);
        self.lock().put(id, Known { identity: Arc::clone(&identity), since: now, last_ping });
        identity
    }

    pub(super) fn forget(&self, connection: &ConnectionId) {
        self.lock().pop(connection);
    }

    /// Whether a connection's sign of life is to be noted. It counts as noted then: where that fails, the one that
    /// comes a minute later is as good.
    pub(super) fn is_ping_due(&self, connection: &ConnectionId, now: Timestamp) -> bool {
        let mut known = self.lock();
        let Some(known) = known.get_mut(connection) else { return false };
        let is_due = now.since(known.last_ping) >= Self::PING_INTERVAL;
        if is_due {
            known.last_ping = now;
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ConnectionId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
