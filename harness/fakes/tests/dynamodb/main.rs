//! Tests of the DynamoDB fake through its public API: SDK in process, streams, HTTP, and databases in folders.

#![expect(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

mod faults;
mod http;
mod items;
mod ledger;
mod open;
mod streams;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::ports::{Clock, Entropy, Timestamp};
use streamer_fakes::dynamodb::{Builder, DynamoDb};

/// A clock that advances only when a test advances it. Starts at the beginning of 2024.
#[derive(Debug)]
struct TestClock(AtomicU64);

impl TestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_704_067_200_000)))
    }

    fn advance(&self, duration: Duration) {
        self.0.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Deterministic entropy: each byte is the previous byte plus one.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0];
        }
    }
}

fn builder(clock: &Arc<TestClock>) -> Builder {
    DynamoDb::builder().clock(Arc::clone(clock) as _).entropy(Arc::new(Counting::default()))
}

fn database() -> (DynamoDb, Arc<TestClock>) {
    let clock = TestClock::new();
    (builder(&clock).in_memory().unwrap(), clock)
}

/// Makes one call that must succeed, and returns its answer.
#[track_caller]
fn call(db: &DynamoDb, operation: &str, body: Value) -> Value {
    let (status, answer) = try_call(db, operation, body);
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

/// Makes one call that must fail with status 400. Returns the error's name and message.
#[track_caller]
fn fail(db: &DynamoDb, operation: &str, body: Value) -> (String, String) {
    let (status, answer) = try_call(db, operation, body);
    assert_eq!(status, 400, "{operation}: {answer}");
    let (_, name) = answer["__type"].as_str().unwrap().split_once('#').unwrap();
    let message = answer["message"].as_str().or(answer["Message"].as_str()).unwrap_or_default();
    (name.to_owned(), message.to_owned())
}

fn try_call(db: &DynamoDb, operation: &str, body: Value) -> (u16, Value) {
    let streams = ["ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"].contains(&operation);
    let prefix = if streams { "DynamoDBStreams_20120810" } else { "DynamoDB_20120810" };
    let response = db.handle(&format!("{prefix}.{operation}"), body.to_string().as_bytes());
    (response.status, serde_json::from_slice(&response.body).unwrap())
}

/// Creates a table with the partition key `pk`, and with a stream if `view_type` is given. Returns the table's
/// description.
fn create_table(db: &DynamoDb, name: &str, view_type: Option<&str>) -> Value {
    let stream = view_type.map_or(
        json!({ "StreamEnabled": false }),
        |view_type| json!({ "StreamEnabled": true, "StreamViewType": view_type }),
    );
    let request = json!({
        "TableName": name,
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": stream,
    });
    call(db, "CreateTable", request)["TableDescription"].take()
}

fn put(db: &DynamoDb, table: &str, item: Value) {
    call(db, "PutItem", json!({ "TableName": table, "Item": item }));
}
