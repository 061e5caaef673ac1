//! A database, and the lock that its calls take in turn.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{Engine, Settings};
use super::ledger::Ledger;
use crate::watch;

/// An embedded DynamoDB with streams; cheap to clone, and all clones are one database.
#[derive(Clone)]
pub struct DynamoDb {
    pub(super) engine: Arc<Mutex<Engine>>,
    pub(super) settings: Arc<Settings>,
    /// How many rows have ever been written.
    pub(super) changes: watch::Sender<u64>,
}

impl DynamoDb {
    /// Opens a ledger: from now on, every call is entered in it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.lock().ledgers().open()
    }

    /// Releases the lock on the folder, so that another database can open it. Call it when nobody writes any more, even if
    /// clones of this database are left.
    #[doc(hidden)]
    pub fn release_folder(&self) {
        self.lock().release_folder();
    }

    /// An identifier in the form of DynamoDB's `x-amzn-requestid`: 52 upper-case letters and digits.
    pub(super) fn request_id(&self) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
        let mut bytes = [0; 52];
        self.settings.entropy.fill(&mut bytes);
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
    }

    /// The engine, for as long as one call lasts; never held across an `await`.
    ///
    /// A panic while it was held left no half-done transaction (see `dispatch`), so poison is ignored.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { engine: self.engine.lock().unwrap_or_else(PoisonError::into_inner), changes: &self.changes }
    }
}

/// The engine while it is held. Whoever waits for changes hears at its end of those that were made.
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
    /// What was written so far concerns nobody who reads a stream.
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
