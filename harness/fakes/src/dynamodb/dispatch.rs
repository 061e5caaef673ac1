//! Dispatches a call: looks up the operation, parses the request, and runs the engine.
//!
//! If a call wrote rows, its change records move into the streams before the database's lock is released.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};
use super::{idempotency, nesting, outbox, removal, stale, streams, tables};

const TABLES_TARGET: &str = "DynamoDB_20120810.";
pub(super) const STREAMS_TARGET: &str = "DynamoDBStreams_20120810.";

/// Answers one call. A panic in the engine fails only this call, with an internal error.
pub(super) fn call(engine: &mut Engine, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    contain(engine, |engine| route(engine, target, body))
}

fn contain(
    engine: &mut Engine,
    work: impl FnOnce(&mut Engine) -> Result<Vec<u8>, ApiError>,
) -> Result<Vec<u8>, ApiError> {
    let answer = catch_unwind(AssertUnwindSafe(|| work(engine)));
    if !engine.conn().is_autocommit() {
        engine.storage().rollback()?;
    }
    answer.unwrap_or_else(|_| Err(ApiError::internal("The request processing has failed")))
}

fn route(engine: &mut Engine, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    if let Some(operation) = target.strip_prefix(TABLES_TARGET) {
        nesting::check(body)?;
        let written = engine.conn().total_changes();
        let answer = on_tables(engine, operation, body);
        // Only a call that wrote rows leaves stream records and index changes to process.
        if engine.conn().total_changes() != written {
            outbox::take(engine)?;
            stale::mark(engine)?;
        }
        return answer;
    }
    let operation = target.strip_prefix(STREAMS_TARGET).ok_or_else(ApiError::unknown_operation)?;
    nesting::check(body)?;
    match operation {
        "ListStreams" => streams::api::list_streams(engine, read(operation, body)?),
        "DescribeStream" => streams::api::describe_stream(engine, read(operation, body)?),
        "GetShardIterator" => streams::api::get_shard_iterator(engine, read(operation, body)?),
        "GetRecords" => streams::api::get_records(engine, read(operation, body)?),
        _ => return Err(ApiError::unknown_operation()),
    }
    .and_then(|answer| write(&answer))
}

/// Runs an operation on tables or items. The engine runs most operations unchanged; this fake adds steps to the others.
fn on_tables(engine: &mut Engine, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    match operation {
        "CreateTable" | "UpdateTable" | "DeleteTable" | "DescribeTable" => {
            tables::call(engine, operation, body)
        }
        "UpdateItem" => removal::update_item(engine, body),
        "TransactWriteItems" | "ExecuteTransaction" => idempotency::call(engine, operation, body),
        _ => engine.run(operation, body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_panic_fails_only_the_current_call_and_leaves_no_transaction_open() {
        let db = crate::dynamodb::DynamoDb::builder().in_memory().expect("in-memory database opens");
        let mut engine = db.lock();
        let answer = contain(&mut engine, |engine| -> Result<Vec<u8>, ApiError> {
            engine.storage().begin_transaction()?;
            panic!("simulated bug in the engine");
        });
        let response = answer.unwrap_err().into_response();
        assert_eq!(response.status, 500);
        assert!(engine.conn().is_autocommit());
        drop(engine);
        assert_eq!(db.handle("DynamoDB_20120810.ListTables", b"{}").status, 200);
    }
}
