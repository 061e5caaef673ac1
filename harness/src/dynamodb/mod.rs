//! DynamoDB, embedded: tables, expressions, indexes and transactions from an engine on SQLite, and streams of
//! our own, on the stage's clock.
//!
//! One [`DynamoDb`] is reached in three ways, and all three give the same answers, since each of them is a thin
//! skin over [`DynamoDb::handle`]:
//!
//! * [`DynamoDb::client`] and [`DynamoDb::http_client`]: the AWS SDK in process, without sockets;
//! * [`DynamoDb::router`]: the HTTP protocol, for any AWS SDK and the AWS CLI;
//! * [`DynamoDb::streams`]: the reading side of the streams, for the event source mapping.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use streamer_harness::dynamodb::DynamoDb;
//!
//! let db = DynamoDb::builder().in_memory()?;
//! let tables = db.client().list_tables().send().await?;
//! assert!(tables.table_names().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where it departs from AWS
//!
//! * Everything is consistent at once: tables are `ACTIVE` when `CreateTable` returns, and index reads are never
//!   stale unless a fault has them so, which concerns global indexes and the latest 10,000 changes of them.
//! * Signatures are not checked, and neither is whether there is one.
//! * Inside a transaction, in PartiQL, and by the legacy `AttributeUpdates`, an update of a missing item that
//!   only removes creates it; `UpdateItem` with an expression creates nothing, as on AWS.
//! * A replayed transaction repeats its first answer, while AWS reports the capacity of a read.
//! * Shards split only when [`Streams::split_shard`] says so, and are not replaced after about four hours unless
//!   [`Builder::shard_lifetime`] is set.
//! * Time to live deletes nothing by itself: whoever owns the clock calls [`DynamoDb::sweep_expired`], or has it called
//!   by [`DynamoDb::sweep_every`], as the stage does every 30 seconds.
//! * The tables that a fault takes out of a batch are not checked: neither that they are there, nor how many items there are.
//! * A transaction that is throttled or meets a conflict on request names the reason for each of its actions.
//! * Capacity is counted by AWS's rules, with the exceptions that [`Ledger`] names.
//! * Attributes of an answered item come in no particular order; those of a stream record are sorted.

mod capacity;
mod client;
mod engine;
mod error;
mod faults;
mod http;
mod idempotency;
mod ledger;
mod nesting;
mod open;
mod outbox;
mod removal;
mod stale;
mod streams;
mod tables;
mod time_to_live;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use engine::{Engine, Settings};

use crate::watch;
pub use ledger::{Call, Calls, Charge, Ledger};
pub use open::{Builder, OpenError, OpenErrorKind};
pub use streams::{
    EventName, SequenceNumber, ShardId, ShardInfo, StreamError, StreamErrorKind, StreamRecord,
    StreamViewType, Streams, UserIdentity,
};
pub use time_to_live::SweepError;

/// An embedded DynamoDB with streams; cheap to clone, and all clones are one database.
#[derive(Clone)]
pub struct DynamoDb {
    engine: Arc<Mutex<Engine>>,
    settings: Arc<Settings>,
    /// How many rows have ever been written.
    changes: watch::Sender<u64>,
}

/// What DynamoDB answers to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status: 200, or that of the error.
    pub status: u16,
    /// The answer as JSON; of an error, DynamoDB's `__type` and message.
    pub body: Bytes,
}

impl DynamoDb {
    /// Settings of a new database, all at their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Answers one call: `target` is the header `x-amz-target`, such as `DynamoDB_20120810.PutItem`, and `body`
    /// its JSON.
    ///
    /// Every call comes to this, whichever way it came, and [`DynamoDb::ledger`] has them all. Faults happen to the
    /// SDK's calls and to those over HTTP, not to what is called here.
    #[must_use]
    pub fn handle(&self, target: &str, body: &[u8]) -> Response {
        faults::respond(ledger::call(&mut self.lock(), target, body))
    }

    /// The reading side of this database's streams.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(self.clone())
    }

    /// Lets go of the folder, for whoever goes on in it: for when nobody is left to write, whoever still has a clone.
    pub(crate) fn release_folder(&self) {
        self.lock().release_folder();
    }

    /// An identifier in the form of DynamoDB's `x-amzn-requestid`: 52 upper-case letters and digits.
    fn request_id(&self) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
        let mut bytes = [0; 52];
        self.settings.entropy.fill(&mut bytes);
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
    }

    /// The engine, for as long as one call lasts; never held across an `await`.
    ///
    /// A panic while it was held left no half-done transaction (see [`Engine::call`]), so poison is ignored.
    fn lock(&self) -> Locked<'_> {
        Locked { engine: self.engine.lock().unwrap_or_else(PoisonError::into_inner), changes: &self.changes }
    }
}

/// The engine while it is held. Whoever waits for changes hears at its end of those that were made.
struct Locked<'a> {
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
    fn skip_notification(&self) {
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
