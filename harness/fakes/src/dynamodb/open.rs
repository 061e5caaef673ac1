//! Opens a database, either in memory or in a folder on disk.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynoxide::storage::Storage;
use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};

use super::database::DynamoDb;
use super::engine::{Engine, Settings};
use super::error::ApiError;
use super::folder_lock::{FolderLock, LOCK_FILE};
use super::{outbox, stale, streams, tables};
use crate::faults::Faults;
use crate::watch;

const DATABASE_FILE: &str = "dynamodb.sqlite3";
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Settings of a [`DynamoDb`] fake. [`Builder::in_memory`] or [`Builder::open`] opens the database with the settings.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder(Settings);

impl Default for Builder {
    fn default() -> Self {
        Self(Settings {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
            shards_per_stream: 4,
            shard_lifetime: None,
            faults: None,
        })
    }
}

impl DynamoDb {
    /// Returns a [`Builder`] with the default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Sets the clock for streams, time to live and client request tokens. Default: the system clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.0.clock = clock;
        self
    }

    /// Sets the source of random bytes for table ids and request ids. Default: the operating system.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.0.entropy = entropy;
        self
    }

    /// Sets the AWS region that ARNs and stream records contain. Default: `us-east-1`.
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.0.region);
        self
    }

    /// Sets the AWS account id that ARNs contain, twelve digits. Default: `000000000000`.
    pub fn account_id(mut self, account_id: &str) -> Self {
        account_id.clone_into(&mut self.0.account_id);
        self
    }

    /// Sets the number of shards of each new stream, at least one. Default: 4.
    ///
    /// More shards let more batches of a stream run concurrently. Existing streams keep their number of shards;
    /// [`Streams::split_shard`](super::Streams::split_shard) splits a shard of an existing stream.
    pub fn shards_per_stream(mut self, shards: u16) -> Self {
        self.0.shards_per_stream = shards.max(1);
        self
    }

    /// Sets the age at which a stream's shard is closed and replaced by one child shard. The minimum is one
    /// millisecond. With the default, `None`, shards are never replaced.
    ///
    /// On AWS the age is about four hours. A shard of this age is replaced by the next write of a record to the shard,
    /// or by the next time-to-live sweep.
    pub fn shard_lifetime(mut self, lifetime: Option<Duration>) -> Self {
        self.0.shard_lifetime = lifetime.map(|lifetime| lifetime.max(Duration::from_millis(1)));
        self
    }

    /// Sets the fault rules for calls to this database. Default: no fault is injected.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.0.faults = Some(faults);
        self
    }

    /// Opens a new database in memory. Its data is lost when its last clone is dropped.
    ///
    /// # Errors
    /// [`OpenError`] of kind [`OpenErrorKind::Internal`] if SQLite cannot create the database, for lack of memory.
    pub fn in_memory(self) -> Result<DynamoDb, OpenError> {
        let internal =
            |detail: String| OpenError::new(OpenErrorKind::Internal, Path::new(":memory:"), detail);
        let storage = Storage::memory().map_err(|error| internal(error.to_string()))?;
        start(storage, self.0, None).map_err(|error| internal(error.to_string()))
    }

    /// Opens the database in the folder `dir`, which is created if missing. Tables, items, streams and checkpoints that
    /// the folder already contains are kept.
    ///
    /// # Errors
    /// [`OpenError`] if the folder cannot be used. [`OpenError::kind`] returns the cause, and the error's text names
    /// the remedy.
    pub fn open(self, dir: &Path) -> Result<DynamoDb, OpenError> {
        if dir.exists() && !dir.is_dir() {
            return Err(OpenError::new(OpenErrorKind::NotAFolder, dir, String::new()));
        }
        fs::create_dir_all(dir).map_err(|error| OpenError::unreadable(dir, &error))?;
        let lock = FolderLock::take(dir).map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::new(OpenErrorKind::Locked, dir, String::new()),
            TryLockError::Error(error) => OpenError::unreadable(&dir.join(LOCK_FILE), &error),
        })?;
        let file = dir.join(DATABASE_FILE);
        check_magic(&file)?;
        let storage = file
            .to_str()
            .ok_or_else(|| OpenError::new(OpenErrorKind::Unreadable, dir, "the path is not UTF-8".to_owned()))
            .and_then(|path| {
                Storage::new(path).map_err(|error| OpenError::corrupt(&file, &error.to_string()))
            })?;
        // With SQLite's write-ahead log, `NORMAL` loses no write when the process dies; only a power failure can lose
        // the last writes. In return, writes do not wait for the disk.
        storage
            .conn()
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(|error| OpenError::corrupt(&file, &error.to_string()))?;
        start(storage, self.0, Some(lock)).map_err(|error| OpenError::corrupt(&file, &error.to_string()))
    }
}

/// Starts a database on an open SQLite storage: creates the tables of the streams, and completes the stream writes that
/// a crash interrupted.
fn start(
    storage: Storage,
    settings: Settings,
    folder_lock: Option<FolderLock>,
) -> Result<DynamoDb, ApiError> {
    let settings = Arc::new(settings);
    let engine = Engine::new(storage, Arc::clone(&settings), folder_lock);
    streams::store::create_tables(engine.conn())?;
    for table in engine.storage().list_table_names()? {
        tables::reconcile_stream(&engine, &table)?;
    }
    outbox::take(&engine)?;
    stale::watch(&engine)?;
    Ok(DynamoDb { engine: Arc::new(Mutex::new(engine)), settings, changes: watch::Sender::default() })
}

/// Checks that `file` is missing, empty, or an SQLite database.
///
/// SQLite's own check comes too late: SQLite reports "file is not a database" only after writing to the file.
fn check_magic(file: &Path) -> Result<(), OpenError> {
    let mut magic = Vec::new();
    match File::open(file).and_then(|file| file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut magic)) {
        Ok(0) => Ok(()),
        Ok(_) if magic == SQLITE_MAGIC => Ok(()),
        Ok(_) => Err(OpenError::new(OpenErrorKind::NotADatabase, file, String::new())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::unreadable(file, &error)),
    }
}

/// Error of opening a [`DynamoDb`] fake. Contains the path and the cause.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    path: PathBuf,
    detail: String,
}

/// Cause of an [`OpenError`]. Each cause has its own remedy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// The given path is a file. Remedy: pass the path of a folder.
    NotAFolder,
    /// The operating system denies access to the folder, or its path is not UTF-8. Remedy: fix the permissions, or name
    /// another folder.
    Unreadable,
    /// Another stage has the folder open. Remedy: stop the other stage, or name another folder.
    Locked,
    /// The file `dynamodb.sqlite3` in the folder is not an SQLite database. Remedy: move the file away.
    NotADatabase,
    /// The database file is damaged, or was written by a newer version of Streamer. Remedy: move the file away, or
    /// upgrade Streamer.
    Corrupt,
    /// SQLite could not create a database in memory.
    Internal,
}

impl OpenError {
    fn new(kind: OpenErrorKind, path: &Path, detail: String) -> Self {
        Self { kind, path: path.to_owned(), detail }
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::new(OpenErrorKind::Unreadable, path, error.to_string())
    }

    fn corrupt(path: &Path, detail: &str) -> Self {
        Self::new(OpenErrorKind::Corrupt, path, detail.to_owned())
    }

    /// Returns the cause of the error, which decides the remedy.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, path, detail } = self;
        let path = path.display();
        match kind {
            OpenErrorKind::NotAFolder => {
                write!(f, "{path} is a file; expected a folder (created if missing)")
            }
            OpenErrorKind::Unreadable => {
                write!(f, "{path} cannot be used ({detail}); fix the cause, or name another folder")
            }
            OpenErrorKind::Locked => {
                write!(f, "{path} is in use by another stage; stop the other stage, or name another folder")
            }
            OpenErrorKind::NotADatabase => {
                write!(f, "{path} is not an SQLite database; move the file away, or name another folder")
            }
            OpenErrorKind::Corrupt => {
                write!(
                    f,
                    "{path} is damaged or was written by a newer version ({detail}); \
                     move the file away, or name another folder"
                )
            }
            OpenErrorKind::Internal => write!(f, "the in-memory database could not be set up ({detail})"),
        }
    }
}

impl std::error::Error for OpenError {}
