//! Where a call becomes work: the operation is looked up, its request read, the engine run, and whatever
//! belongs to the same call done under the same lock.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};
use super::{idempotency, nesting, outbox, removal, stale, streams, tables};

const TABLES_TARGET: &str = "DynamoDB_20120810.";
pub(super) const STREAMS_TARGET: &str = "DynamoDBStreams_20120810.";

/// Answers one call. A panic in the engine is an internal error of this call alone.
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
        // A read leaves nothing to see to.
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

/// The operations that need more than the engine; all others go to it as they are.
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
    fn a_panic_in_the_engine_fails_one_call_and_leaves_no_transaction_open() {
        let db = crate::dynamodb::DynamoDb::builder().in_memory().expect("memory is enough");
        let mut engine = db.lock();
        let answer = contain(&mut engine, |engine| -> Result<Vec<u8>, ApiError> {
            engine.storage().begin_transaction()?;
            panic!("a bug in the engine, as this test wants it");
        });
        let response = answer.unwrap_err().into_response();
        assert_eq!(response.status, 500);
        assert!(engine.conn().is_autocommit());
        drop(engine);
        assert_eq!(db.handle("DynamoDB_20120810.ListTables", b"{}").status, 200);
    }
}
