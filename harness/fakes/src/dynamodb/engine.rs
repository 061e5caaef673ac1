//! The `dynoxide` engine on SQLite, with the state that a database keeps in memory while it is open.

use std::sync::Arc;
use std::time::Duration;

use dynoxide::actions::{self, vector_lifecycle::VectorIndexLifecycle};
use dynoxide::storage::Storage;
use rusqlite::Connection;
use streamer::ports::{Clock, Entropy, Timestamp};

use super::client_tokens::ClientTokens;
use super::error::ApiError;
use super::folder_lock::FolderLock;
use super::json::{read, write};
use super::last_sweep::LastSweep;
use super::ledger::Ledgers;
use crate::faults::{Caller, Faults};

/// Number of prepared statements that SQLite caches. All statements of a stage's tables fit into the cache, because
/// preparing a statement takes most of the time of a call.
const PREPARED_STATEMENTS: usize = 512;

/// Settings of a database, fixed when the database is opened.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) region: String,
    pub(super) account_id: String,
    pub(super) shards_per_stream: u16,
    pub(super) shard_lifetime: Option<Duration>,
    /// Fault rules for the calls of this database; `None` disables fault injection.
    pub(super) faults: Option<Faults>,
}

/// State of one database, guarded by the database's lock.
pub(super) struct Engine {
    storage: Storage,
    lifecycle: VectorIndexLifecycle,
    client_tokens: ClientTokens,
    ledgers: Ledgers,
    settings: Arc<Settings>,
    /// Lock on the database's folder; `None` in memory. Declared after `storage`, so that the storage is closed first.
    folder_lock: Option<FolderLock>,
    last_sweep: Option<LastSweep>,
    /// True once the folder's lock was released. Another database may then use the folder.
    released: bool,
    /// Function that makes the current call; `None` if the call comes from outside a function.
    caller: Option<Caller>,
}

impl Engine {
    pub(super) fn new(storage: Storage, settings: Arc<Settings>, folder_lock: Option<FolderLock>) -> Self {
        let storage = storage.with_clock(Arc::new(EngineClock(Arc::clone(&settings.clock))));
        storage.conn().set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        Self {
            storage,
            lifecycle: VectorIndexLifecycle::new(),
            client_tokens: ClientTokens::default(),
            ledgers: Ledgers::default(),
            settings,
            folder_lock,
            last_sweep: None,
            released: false,
            caller: None,
        }
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(super) fn conn(&self) -> &Connection {
        self.storage.conn()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn release_folder(&mut self) {
        self.folder_lock = None;
        self.released = true;
    }

    /// Returns whether the folder's lock was released, after which no call may write.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    pub(super) fn set_caller(&mut self, caller: Option<Caller>) {
        self.caller = caller;
    }

    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    pub(super) fn last_sweep(&mut self) -> &mut Option<LastSweep> {
        &mut self.last_sweep
    }

    pub(super) fn ledgers(&mut self) -> &mut Ledgers {
        &mut self.ledgers
    }

    pub(super) fn client_tokens(&mut self) -> &mut ClientTokens {
        &mut self.client_tokens
    }

    /// Runs one operation of the engine, and returns the answer as JSON.
    pub(super) fn run(&self, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        macro_rules! operations {
            ($($name:literal => $action:ident $(with $extra:expr)?;)*) => {
                match operation {
                    $($name => write(&pollster::block_on(
                        actions::$action::execute(&self.storage, read($name, body)? $(, $extra)?)
                    )?),)*
                    _ => Err(ApiError::unknown_operation()),
                }
            };
        }
        operations! {
            "BatchExecuteStatement" => batch_execute_statement;
            "BatchGetItem" => batch_get_item;
            "BatchWriteItem" => batch_write_item;
            "CreateTable" => create_table;
            "DeleteItem" => delete_item;
            "DeleteTable" => delete_table with &self.lifecycle;
            "DescribeTable" => describe_table with &self.lifecycle;
            "DescribeTimeToLive" => describe_time_to_live;
            "ExecuteStatement" => execute_statement;
            "ExecuteTransaction" => execute_transaction;
            "GetItem" => get_item;
            "ListTables" => list_tables;
            "ListTagsOfResource" => list_tags_of_resource;
            "PutItem" => put_item;
            "Query" => query;
            "Scan" => scan;
            "TagResource" => tag_resource;
            "TransactGetItems" => transact_get_items;
            "TransactWriteItems" => transact_write_items;
            "UntagResource" => untag_resource;
            "UpdateItem" => update_item;
            "UpdateTable" => update_table with &self.lifecycle;
            "UpdateTimeToLive" => update_time_to_live;
        }
    }
}

/// Adapts the stage's clock to the engine's clock trait.
struct EngineClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for EngineClock {
    fn now_unix_secs(&self) -> u64 {
        self.0.now().as_secs()
    }

    fn now_unix_secs_f64(&self) -> f64 {
        Duration::from_millis(self.0.now().as_millis()).as_secs_f64()
    }
}
