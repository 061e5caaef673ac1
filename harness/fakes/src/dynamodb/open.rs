//! How a database is made: in memory, or in a folder that stays.

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

/// Settings of a database, to end with [`Builder::in_memory`] or [`Builder::open`].
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
    /// Settings of a new database, all at their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// The clock of streams, time to live and idempotency tokens; the machine's by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.0.clock = clock;
        self
    }

    /// Where table and request ids come from; the operating system by default.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.0.entropy = entropy;
        self
    }

    /// The region in ARNs and stream records; `us-east-1` by default.
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.0.region);
        self
    }

    /// The account in ARNs, twelve digits; `000000000000` by default.
    pub fn account_id(mut self, account_id: &str) -> Self {
        account_id.clone_into(&mut self.0.account_id);
        self
    }

    /// How many shards a new stream gets, at least one; 4 by default. More shards let more batches run at once;
    /// streams that exist keep theirs. [`Streams::split_shard`](super::Streams::split_shard) makes more of them later.
    pub fn shards_per_stream(mut self, shards: u16) -> Self {
        self.0.shards_per_stream = shards.max(1);
        self
    }

    /// How long a shard takes records before it is closed and has one child in its place; for ever by default.
    ///
    /// On AWS that is about four hours. It happens at the first write, or at the first sweep, after that time.
    pub fn shard_lifetime(mut self, lifetime: Option<Duration>) -> Self {
        self.0.shard_lifetime = lifetime.map(|lifetime| lifetime.max(Duration::from_millis(1)));
        self
    }

    /// What can go wrong with calls, on request; nothing by default.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.0.faults = Some(faults);
        self
    }

    /// A database that is gone when its last clone is dropped.
    ///
    /// # Errors
    /// When SQLite cannot be set up, for lack of memory.
    pub fn in_memory(self) -> Result<DynamoDb, OpenError> {
        let internal =
            |detail: String| OpenError::new(OpenErrorKind::Internal, Path::new(":memory:"), detail);
        let storage = Storage::memory().map_err(|error| internal(error.to_string()))?;
        start(storage, self.0, None).map_err(|error| internal(error.to_string()))
    }

    /// The database in the folder `dir`, made if it is not there yet: tables, streams and checkpoints go on
    /// where they were left.
    ///
    /// # Errors
    /// When the folder cannot be used: [`OpenError::kind`] says why, and its text what to do about it.
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
            .ok_or_else(|| OpenError::new(OpenErrorKind::Unreadable, dir, "its path is not UTF-8".to_owned()))
            .and_then(|path| {
                Storage::new(path).map_err(|error| OpenError::corrupt(&file, &error.to_string()))
            })?;
        // With SQLite's write-ahead log this loses nothing when the process dies; only a power cut may cost the
        // last writes, and each write is spared waiting for the disk.
        storage
            .conn()
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(|error| OpenError::corrupt(&file, &error.to_string()))?;
        start(storage, self.0, Some(lock)).map_err(|error| OpenError::corrupt(&file, &error.to_string()))
    }
}

/// Takes over a storage: makes our own tables in it, and finishes what a crash cut short.
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

/// SQLite would say no more than "file is not a database", and only after having written to it.
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

/// Why a database could not be opened.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    path: PathBuf,
    detail: String,
}

/// What to do about a database that could not be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// The path is a file: name a folder.
    NotAFolder,
    /// The operating system refuses: mend the permissions, or name another folder.
    Unreadable,
    /// Another process has it open: stop that one, or name another folder.
    Locked,
    /// The folder's database file is something else: move it away.
    NotADatabase,
    /// The database file is damaged, or of a newer version: move it away, or upgrade.
    Corrupt,
    /// SQLite could not be set up at all.
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

    /// What to do about it.
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
                write!(f, "{path} is a file, but the data lie in a folder; name a folder, which may be new")
            }
            OpenErrorKind::Unreadable => {
                write!(f, "{path} cannot be used ({detail}); mend that, or name another folder")
            }
            OpenErrorKind::Locked => {
                write!(f, "{path} is in use by another stage; stop that one, or name another folder")
            }
            OpenErrorKind::NotADatabase => {
                write!(f, "{path} is not a database; move it away, or name another folder")
            }
            OpenErrorKind::Corrupt => {
                write!(
                    f,
                    "{path} cannot be read as our database ({detail}); move it away, or name another folder"
                )
            }
            OpenErrorKind::Internal => write!(f, "the database in memory could not be set up ({detail})"),
        }
    }
}

impl std::error::Error for OpenError {}
