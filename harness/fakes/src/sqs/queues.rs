//! The [`Queues`] handle: how the queues are opened, and the state that all operations share.

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

/// The SQS queues of one account in one region. Clones are cheap, and all clones share the same queues.
#[derive(Clone)]
pub struct Queues {
    pub(super) inner: Arc<Inner>,
    pub(super) faults: Faults,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// Notified whenever a message may have become receivable, to wake up long polls.
    pub(super) changes: watch::Sender<()>,
    clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    region: String,
    pub(super) account_id: String,
}

/// A message in an SQS queue, whether or not the message can be received now.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Id that SQS assigned to the message.
    pub id: String,
    /// Body of the message.
    pub body: String,
    /// Time at which the message was sent.
    pub sent: Timestamp,
    /// Number of times that the message was received from its current queue.
    pub receive_count: u32,
    /// ARN of the queue from which the message came as a dead letter; `None` if the message is not a dead letter.
    pub dead_letter_source: Option<String>,
}

impl Queues {
    /// Creates an empty set of queues in memory. Their data is lost when the last clone is dropped.
    ///
    /// # Errors
    /// [`QueueError`] if SQLite cannot create the database, for lack of memory.
    pub fn in_memory(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        Self::on(Connection::open_in_memory(), clock, entropy, region, account_id)
    }

    /// Opens the queues that are stored in `folder`. If the folder contains no queues, starts without queues.
    ///
    /// This function does not lock the folder, because the DynamoDB fake of the same stage already holds a lock.
    ///
    /// # Errors
    /// [`QueueError`] if the folder, or the database file in the folder, cannot be used.
    pub fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        let file = folder.join(DATABASE_FILE);
        let conn = Connection::open(&file).and_then(|conn| {
            // With these settings, no write is lost when the process dies, and no call waits for the disk. The DynamoDB
            // fake uses the same settings.
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

    /// Returns a handle to the same queues, with the fault rules `faults`.
    ///
    /// Faults apply to calls by SDK clients and over HTTP, and to messages that the fake Lambda sends to a destination.
    /// Faults do not apply to direct calls such as [`send`](Self::send).
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Returns the ARN of the queue `name`, whether or not the queue exists.
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

    /// Locks the state of the queues. The lock is never held across an `await`.
    ///
    /// Poisoning is ignored, because each SQL statement is atomic, so a panic leaves no partial write.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

/// Error of creating, opening or using a queue, with the text of SQS's or SQLite's error.
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
