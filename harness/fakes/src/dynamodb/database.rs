//! The [`DynamoDb`] handle, and the lock that lets one call at a time use the engine.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{Engine, Settings};
use super::ledger::Ledger;
use crate::watch;

/// A fake DynamoDB with streams that runs in this process. Clones are cheap, and all clones share one database.
#[derive(Clone)]
pub struct DynamoDb {
    pub(super) engine: Arc<Mutex<Engine>>,
    pub(super) settings: Arc<Settings>,
    /// Number of SQLite rows written since the database was opened. Watchers wake up when a call changes the number.
    pub(super) changes: watch::Sender<u64>,
}

impl DynamoDb {
    /// Opens a ledger, which records every later call to this database.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.lock().ledgers().open()
    }

    /// Releases the lock on the folder, so that another [`DynamoDb`] can open the folder.
    ///
    /// Call this function only after the last write. Clones of this database may still exist.
    #[doc(hidden)]
    pub fn release_folder(&self) {
        self.lock().release_folder();
    }

    /// Returns a new id in the format of DynamoDB's `x-amzn-requestid` header: 52 upper-case letters and digits.
    pub(super) fn request_id(&self) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
        let mut bytes = [0; 52];
        self.settings.entropy.fill(&mut bytes);
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
    }

    /// Locks the engine for one call. The lock is never held across an `await`.
    ///
    /// Poisoning is ignored, because a panic leaves no open transaction (see `dispatch`).
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { engine: self.engine.lock().unwrap_or_else(PoisonError::into_inner), changes: &self.changes }
    }
}

/// The locked engine. Dropping this guard notifies the watchers of `changes` if rows were written.
pub(super) struct Locked<'a> {
    engine: MutexGuard<'a, Engine>,
    changes: &'a watch::Sender<u64>,
}

impl Deref for Locked<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Locked<'_> {
    /// Suppresses the notification about the rows written so far. Used for rows that no reader of a stream needs, such
    /// as checkpoints.
    pub(super) fn skip_notification(&self) {
        let written = self.engine.conn().total_changes();
        self.changes.send_if_modified(|known| {
            *known = written;
            false
        });
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let written = self.engine.conn().total_changes();
        self.changes.send_if_modified(|known| std::mem::replace(known, written) != written);
    }
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}
