//! The queues of a stage: how they are made, and what all operations share.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use streamer::ports::{Clock, Entropy, Timestamp};

use super::error::ApiError;
use super::state::State;
use super::store::Store;
use crate::aws_format::partition;
use crate::faults::Faults;
use crate::watch;

const DATABASE_FILE: &str = "sqs.sqlite3";

/// The queues of one account in one region; cheap to clone, and all clones are the same queues.
#[derive(Clone)]
pub struct Queues {
    pub(super) inner: Arc<Inner>,
    pub(super) faults: Faults,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// Told whenever a message may have become receivable.
    pub(super) changes: watch::Sender<()>,
    clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    region: String,
    pub(super) account_id: String,
}

/// A message in a queue, whether it can be received now or not.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its id.
    pub id: String,
    /// What it says.
    pub body: String,
    /// When it was sent.
    pub sent: Timestamp,
    /// How often it has been received.
    pub receive_count: u32,
    /// The ARN of the queue whose dead letter it is.
    pub dead_letter_source: Option<String>,
}

impl Queues {
    /// Queues that are gone when the last clone is dropped.
    ///
    /// # Errors
    /// When SQLite cannot be set up, for lack of memory.
    pub fn in_memory(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        Self::on(Connection::open_in_memory(), clock, entropy, region, account_id)
    }

    /// The queues in a folder, made if there are none: they go on where they were left.
    ///
    /// The folder is guarded by whoever has the tables in it open.
    ///
    /// # Errors
    /// When the folder, or the database file in it, cannot be used.
    pub fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        let file = folder.join(DATABASE_FILE);
        let conn = Connection::open(&file).and_then(|conn| {
            // As of the tables: nothing is lost when the process dies, and no call waits for the disk.
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "NORMAL")?;
            Ok(conn)
        });
        Self::on(conn, clock, entropy, region, account_id).map_err(|error| {
            QueueError(format!("the queues in {} cannot be used: {}", file.display(), error.0))
        })
    }

    fn on(
        conn: rusqlite::Result<Connection>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        let store = conn.and_then(Store::new).map_err(|error| QueueError(error.to_string()))?;
        let state = Mutex::new(State { store, tasks: Vec::new() });
        let (region, account_id) = (region.to_owned(), account_id.to_owned());
        let changes = watch::Sender::new(());
        let inner = Arc::new(Inner { state, changes, clock, entropy, region, account_id });
        Ok(Self { inner, faults: Faults::default() })
    }

    /// The same queues, whose calls go wrong as `faults` says, and what Lambda sends to them. What a test sends by itself
    /// does not.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The ARN of a queue of this name.
    #[must_use]
    pub fn arn(&self, name: &str) -> String {
        let Inner { region, account_id, .. } = &*self.inner;
        format!("arn:{}:sqs:{region}:{account_id}:{name}", partition(region))
    }

    pub(super) fn url(&self, origin: &str, name: &str) -> String {
        format!("{origin}/{}/{name}", self.inner.account_id)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(super) fn changed(&self) {
        self.inner.changes.send_replace(());
    }

    /// Never held across an `await`. Each statement is whole by itself, so a panic elsewhere does not spoil it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

/// Why a queue cannot be made or used: SQS's own error, or what SQLite says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueError(String);

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueueError {}

impl From<ApiError> for QueueError {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}
