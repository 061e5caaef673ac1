//! Where a call becomes work: the operation is looked up, its request read, the engine run, and whatever
//! belongs to the same call done under the same lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use dynoxide::actions::{self, vector_lifecycle::VectorIndexLifecycle};
use dynoxide::storage::Storage;
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use streamer::ports::{Clock, Entropy, Timestamp};

use super::error::ApiError;
use super::idempotency::ClientTokens;
use super::ledger::Ledgers;
use super::open::FolderLock;
use super::time_to_live::Swept;
use super::{idempotency, nesting, outbox, removal, stale, streams, tables};
use crate::faults::{Caller, Faults};

const TABLES_TARGET: &str = "DynamoDB_20120810.";

/// How many statements stay prepared: all that a stage's tables have need of, or else preparing them is most of what a call costs.
const PREPARED_STATEMENTS: usize = 512;
pub(super) const STREAMS_TARGET: &str = "DynamoDBStreams_20120810.";

/// What a database is told once, when it is made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) region: String,
    pub(super) account_id: String,
    pub(super) shards_per_stream: u16,
    pub(super) shard_lifetime: Option<Duration>,
    /// What can go wrong on request, if anything can.
    pub(super) faults: Option<Faults>,
}

/// The database behind its lock.
pub(super) struct Engine {
    storage: Storage,
    lifecycle: VectorIndexLifecycle,
    client_tokens: ClientTokens,
    ledgers: Ledgers,
    settings: Arc<Settings>,
    /// Held for as long as the folder is ours, and so dropped after the storage; `None` in memory.
    folder_lock: Option<FolderLock>,
    swept: Option<Swept>,
    /// The folder may be another's by now.
    released: bool,
    /// Who makes the call that is answered now, where that is known.
    caller: Option<Caller>,
}

impl Engine {
    /// Takes over a storage: makes our own tables in it, and finishes what a crash cut short.
    pub(super) fn new(
        storage: Storage,
        settings: Arc<Settings>,
        folder_lock: Option<FolderLock>,
    ) -> Result<Self, ApiError> {
        let storage = storage.with_clock(Arc::new(EngineClock(Arc::clone(&settings.clock))));
        storage.conn().set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        streams::store::create_tables(storage.conn())?;
        let engine = Self {
            storage,
            lifecycle: VectorIndexLifecycle::new(),
            client_tokens: ClientTokens::default(),
            ledgers: Ledgers::default(),
            settings,
            folder_lock,
            swept: None,
            released: false,
            caller: None,
        };
        for table in engine.storage.list_table_names()? {
            tables::reconcile_stream(&engine, &table)?;
        }
        outbox::take(&engine)?;
        stale::watch(&engine)?;
        Ok(engine)
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

    /// Whether nobody is to write any more.
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

    /// Answers one call. A panic in the engine is an internal error of this call alone.
    pub(super) fn call(&mut self, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.contain(|engine| engine.route(target, body))
    }

    fn contain(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<Vec<u8>, ApiError>,
    ) -> Result<Vec<u8>, ApiError> {
        let answer = catch_unwind(AssertUnwindSafe(|| work(self)));
        if !self.conn().is_autocommit() {
            self.storage.rollback()?;
        }
        answer.unwrap_or_else(|_| Err(ApiError::internal("The request processing has failed")))
    }

    fn route(&mut self, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        if let Some(operation) = target.strip_prefix(TABLES_TARGET) {
            nesting::check(body)?;
            let written = self.conn().total_changes();
            let answer = self.on_tables(operation, body);
            // A read leaves nothing to see to.
            if self.conn().total_changes() != written {
                outbox::take(self)?;
                stale::mark(self)?;
            }
            return answer;
        }
        let operation = target.strip_prefix(STREAMS_TARGET).ok_or_else(ApiError::unknown_operation)?;
        nesting::check(body)?;
        match operation {
            "ListStreams" => streams::api::list_streams(self, read(operation, body)?),
            "DescribeStream" => streams::api::describe_stream(self, read(operation, body)?),
            "GetShardIterator" => streams::api::get_shard_iterator(self, read(operation, body)?),
            "GetRecords" => streams::api::get_records(self, read(operation, body)?),
            _ => return Err(ApiError::unknown_operation()),
        }
        .and_then(|answer| write(&answer))
    }

    /// The operations that need more than the engine; all others go to it as they are.
    fn on_tables(&mut self, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        match operation {
            "CreateTable" | "UpdateTable" | "DeleteTable" | "DescribeTable" => {
                tables::call(self, operation, body)
            }
            "UpdateItem" => removal::update_item(self, body),
            "TransactWriteItems" | "ExecuteTransaction" => idempotency::call(self, operation, body),
            _ => self.run(operation, body),
        }
    }

    pub(super) fn swept(&mut self) -> &mut Option<Swept> {
        &mut self.swept
    }

    pub(super) fn ledgers(&mut self) -> &mut Ledgers {
        &mut self.ledgers
    }

    pub(super) fn client_tokens(&mut self) -> &mut ClientTokens {
        &mut self.client_tokens
    }

    /// Runs one operation of the engine.
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

/// Our clock as the engine asks for it.
struct EngineClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for EngineClock {
    fn now_unix_secs(&self) -> u64 {
        self.0.now().as_secs()
    }

    fn now_unix_secs_f64(&self) -> f64 {
        Duration::from_millis(self.0.now().as_millis()).as_secs_f64()
    }
}

/// Reads a request, or says what is wrong with it in DynamoDB's error types.
pub(super) fn read<T: DeserializeOwned>(operation: &str, body: &[u8]) -> Result<T, ApiError> {
    // Derived decoders would also take an array, for the members in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::serialization(None));
    }
    serde_json::from_slice(body).map_err(|error| {
        if !error.is_data() {
            return ApiError::serialization(None);
        }
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _position)| message);
        classify(operation, text)
    })
}

/// The engine's decoders mark how DynamoDB would class what they refuse with a prefix of their message.
fn classify(operation: &str, text: &str) -> ApiError {
    match text.split_once(':') {
        Some(("VALIDATION" | "VALIDATION_AS_READ", message)) => ApiError::validation(message),
        Some(("VALIDATION_REQUEST", message)) => {
            if matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem") {
                ApiError::validation(&format!("1 validation error detected: {message}"))
            } else {
                ApiError::validation(message)
            }
        }
        Some(("SERIALIZATION" | "SERIALIZATION_AS_READ", message)) => {
            ApiError::serialization((!message.is_empty()).then_some(message))
        }
        _ if text.starts_with("invalid type") => ApiError::serialization(Some(text)),
        _ => ApiError::validation(text),
    }
}

pub(super) fn write<T: Serialize>(answer: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(answer).map_err(|error| ApiError::internal(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_decoder_refuses_is_classed_by_its_mark() {
        let error = |operation: &str, text: &str| classify(operation, text).to_string();
        let validation = error("PutItem", "VALIDATION_REQUEST:too much");
        assert!(validation.contains("validate#ValidationException"), "{validation}");
        assert!(validation.contains("1 validation error detected: too much"), "{validation}");
        assert!(error("Query", "VALIDATION_REQUEST:too much").contains(r#""message":"too much""#));
        assert!(error("Query", "VALIDATION:none").contains(r#""message":"none""#));
        assert!(error("Query", "SERIALIZATION:not a list").contains(r#""Message":"not a list""#));
        let bare = r#"{"__type":"com.amazon.coral.service#SerializationException"}"#;
        assert_eq!(error("Query", "SERIALIZATION:"), bare);
        assert!(error("Query", "invalid type: map, expected a string").contains("SerializationException"));
        assert!(error("Query", "missing field `TableName`").contains("ValidationException"));
    }

    #[test]
    fn a_panic_in_the_engine_fails_one_call_and_leaves_no_transaction_open() {
        let db = super::super::DynamoDb::builder().in_memory().expect("memory is enough");
        let mut engine = db.lock();
        let answer = engine.contain(|engine| -> Result<Vec<u8>, ApiError> {
            engine.storage.begin_transaction()?;
            panic!("a bug in the engine, as this test wants it");
        });
        let response = answer.unwrap_err().into_response();
        assert_eq!(response.status, 500);
        assert!(engine.conn().is_autocommit());
        drop(engine);
        assert_eq!(db.handle("DynamoDB_20120810.ListTables", b"{}").status, 200);
    }
}
