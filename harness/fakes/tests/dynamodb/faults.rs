//! Tests of fault injection into DynamoDB calls, in process and over HTTP.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, Region};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, Put, PutRequest, TransactWriteItem, WriteRequest,
};
use serde_json::{Value, json};
use streamer_fakes::dynamodb::DynamoDb;
use streamer_fakes::faults::{Call, Caller, Fault, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::{TestClock, builder, call, create_table, put};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn database() -> (DynamoDb, Faults, std::sync::Arc<TestClock>) {
    let (clock, faults) = (TestClock::new(), Faults::default());
    let db = builder(&clock).faults(faults.clone()).in_memory().unwrap();
    create_table(&db, "things", None);
    (db, faults, clock)
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

async fn put_by(client: &Client, key: &str) -> Result<(), SdkError<PutItemError>> {
    client.put_item().table_name("things").item("pk", s(key)).send().await.map(drop)
}

fn stored(db: &DynamoDb) -> u64 {
    call(db, "Scan", json!({ "TableName": "things" }))["Count"].as_u64().unwrap()
}

fn status<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().unwrap().status().as_u16()
}

/// Returns a client with the SDK's standard retries.
fn retrying(db: &DynamoDb) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(db.http_client())
        .retry_config(RetryConfig::standard())
        .build();
    Client::from_conf(config)
}

#[tokio::test]
async fn throttled_put_writes_nothing_and_names_the_throttled_table() {
    let (db, faults, _) = database();
    let guard = faults.add(Fault::throttle(Call::dynamodb("PutItem").on("things")).times(1));
    let ledger = db.ledger();
    let error = put_by(&db.client(), "a").await.unwrap_err();
    assert_eq!((status(&error), guard.hits(), stored(&db)), (400, 1, 0));
    assert_eq!(ledger.take()[0].to_string(), "PutItem things -> ThrottlingException");
    let PutItemError::ThrottlingException(throttled) = error.into_service_error() else {
        panic!("an on-demand table is throttled with ThrottlingException");
    };
    let reason = &throttled.throttling_reasons()[0];
    assert_eq!(reason.reason(), Some("TableWriteKeyRangeThroughputExceeded"));
    assert_eq!(reason.resource(), Some("arn:aws:dynamodb:us-east-1:000000000000:table/things"));
    put_by(&db.client(), "a").await.unwrap();
    assert_eq!(stored(&db), 1);
}

#[tokio::test]
async fn throttled_call_on_a_provisioned_table_fails_with_provisioned_throughput_exceeded() {
    let (db, faults, _) = database();
    let request = json!({
        "TableName": "provisioned",
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "ProvisionedThroughput": { "ReadCapacityUnits": 1, "WriteCapacityUnits": 1 },
    });
    call(&db, "CreateTable", request);
    let _guard = faults.add(Fault::throttle(Call::any_dynamodb().on("provisioned")));
    let get = db.client().get_item().table_name("provisioned").key("pk", s("a")).send().await;
    let error = get.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::get_item::GetItemError::ProvisionedThroughputExceededException(
        throttled,
    ) = error
    else {
        panic!("{error:?}");
    };
    let reason = throttled.throttling_reasons()[0].reason();
    assert_eq!(reason, Some("TableReadProvisionedThroughputExceeded"));
    put_by(&db.client(), "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sdk_retries_throttled_and_failed_dynamodb_calls() {
    for fault in [Fault::throttle, Fault::fail, Fault::fail_after_apply] {
        let (db, faults, _) = database();
        let guard = faults.add(fault(Call::dynamodb("PutItem")).times(2));
        put_by(&retrying(&db), "a").await.unwrap();
        assert_eq!((guard.hits(), stored(&db)), (2, 1));
    }
}

#[tokio::test]
async fn fail_fault_prevents_the_write_and_fail_after_apply_fault_applies_the_write() {
    let (db, faults, _) = database();
    for (fault, expected) in [(Fault::fail as fn(Call) -> Fault, 0), (Fault::fail_after_apply, 1)] {
        let _guard = faults.add(fault(Call::dynamodb("PutItem")));
        let error = put_by(&db.client(), "a").await.unwrap_err();
        assert_eq!((status(&error), stored(&db)), (500, expected));
        assert_eq!(error.into_service_error().code(), Some("InternalServerError"));
    }
}

#[tokio::test(start_paused = true)]
async fn dynamodb_call_with_a_lost_answer_takes_effect_but_never_returns() {
    let (db, faults, _) = database();
    let _guard = faults.add(Fault::lose_answer(Call::dynamodb("PutItem")));
    timeout(HOUR, put_by(&db.client(), "a")).await.unwrap_err();
    assert_eq!(stored(&db), 1);
}

#[tokio::test(start_paused = true)]
async fn delayed_dynamodb_call_takes_effect_after_its_delay_and_undelayed_calls_immediately() {
    let (db, faults, _) = database();
    let start = Instant::now();
    put_by(&db.client(), "a").await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let _delays =
        [1, 2].map(|secs| faults.add(Fault::delay(Call::dynamodb("PutItem"), Duration::from_secs(secs))));
    let client = db.client();
    let delayed = tokio::spawn(async move { put_by(&client, "b").await.unwrap() });
    tokio::time::sleep(Duration::from_millis(2_999)).await;
    assert_eq!(stored(&db), 1);
    delayed.await.unwrap();
    assert_eq!((start.elapsed(), stored(&db)), (Duration::from_secs(3), 2));
}

#[tokio::test(start_paused = true)]
async fn delayed_write_takes_effect_even_if_its_caller_has_timed_out() {
    let (db, faults, _) = database();
    let _slow = faults.add(Fault::delay(Call::dynamodb("PutItem"), Duration::from_secs(5)));
    let start = Instant::now();
    let patience = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(3)).build();
    let config = retrying(&db).config().to_builder().timeout_config(patience);
    let client = Client::from_conf(config.retry_config(RetryConfig::disabled()).build());
    let error = put_by(&client, "a").await.unwrap_err();
    assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stored(&db), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stored(&db), 1);
}

#[tokio::test]
async fn delayed_write_over_http_takes_effect_even_if_its_caller_has_hung_up() {
    let (db, faults, _) = database();
    let slow = faults.add(Fault::delay(Call::dynamodb("PutItem"), Duration::from_millis(200)));
    let body = json!({ "TableName": "things", "Item": { "pk": { "S": "a" } } }).to_string();
    let request = http::Request::post("/").header("x-amz-target", "DynamoDB_20120810.PutItem");
    let answer = db.router().oneshot(request.body(axum::body::Body::from(body)).unwrap());
    // When a connection closes, an HTTP server drops the future that serves it. The timeout does the same.
    timeout(Duration::from_millis(50), answer).await.unwrap_err();
    assert_eq!((slow.hits(), stored(&db)), (1, 0));
    timeout(Duration::from_secs(10), async {
        while stored(&db) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

fn writing(key: &str) -> TransactWriteItem {
    let write = Put::builder().table_name("things").item("pk", s(key)).build().unwrap();
    TransactWriteItem::builder().put(write).build()
}

#[tokio::test]
async fn conflict_fault_fails_writes_and_transactions_but_not_reads() {
    let (db, faults, _) = database();
    let conflict = faults.add(Fault::conflict(Call::any_dynamodb().on("things")));
    let error = put_by(&db.client(), "a").await.unwrap_err().into_service_error();
    assert!(matches!(error, PutItemError::TransactionConflictException(_)), "{error:?}");
    let reads = db.client().get_item().table_name("things").key("pk", s("a")).send().await;
    reads.unwrap();
    assert_eq!(conflict.hits(), 1, "a conflict fault neither fails nor counts a read");

    let cancelled = async |fault: Fault| {
        let _guard = faults.add(fault);
        let both =
            db.client().transact_write_items().transact_items(writing("a")).transact_items(writing("b"));
        let error = both.send().await.unwrap_err().into_service_error();
        use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException;
        let TransactionCanceledException(cancelled) = error else { panic!("{error:?}") };
        assert!(cancelled.message().unwrap().starts_with("Transaction cancelled, please refer"));
        let reasons = cancelled.cancellation_reasons();
        reasons.iter().map(|reason| reason.code().unwrap().to_owned()).collect::<Vec<_>>()
    };
    drop(conflict);
    let call = Call::dynamodb("TransactWriteItems").on("things");
    assert_eq!(cancelled(Fault::conflict(call.clone())).await, ["TransactionConflict"; 2]);
    assert_eq!(cancelled(Fault::throttle(call)).await, ["ThrottlingError"; 2]);
    assert_eq!(stored(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn kill_fault_kills_the_calling_function_before_its_write_takes_effect() {
    let (db, faults, _) = database();
    let (processor, router) = (Caller::new("Processor"), Caller::new("Router"));
    let guard = faults.add(Fault::kill(Call::dynamodb("PutItem").by("Processor")).after(1));
    put_by(&db.client_for(processor.clone()), "first").await.unwrap();
    put_by(&db.client_for(router), "another's").await.unwrap();
    let everyone = faults.add(Fault::kill(Call::any_dynamodb()));
    put_by(&db.client(), "nobody's").await.unwrap();
    assert_eq!(everyone.hits(), 0, "a kill fault does not apply to a caller that is not a function");
    drop(everyone);
    assert_eq!(stored(&db), 3);
    timeout(HOUR, put_by(&db.client_for(processor.clone()), "second")).await.unwrap_err();
    timeout(HOUR, processor.killed()).await.unwrap();
    assert_eq!((guard.hits(), stored(&db)), (1, 3));
}

fn indexed() -> (DynamoDb, Faults, std::sync::Arc<TestClock>) {
    let (clock, faults) = (TestClock::new(), Faults::default());
    let db = builder(&clock).faults(faults.clone()).in_memory().unwrap();
    index_table(&db);
    (db, faults, clock)
}

fn index_table(db: &DynamoDb) {
    let request = json!({
        "TableName": "things",
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "owner", "AttributeType": "S" },
        ],
        "GlobalSecondaryIndexes": [{
            "IndexName": "by-owner",
            "KeySchema": [{ "AttributeName": "owner", "KeyType": "HASH" }],
            "Projection": { "ProjectionType": "ALL" },
        }],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "KEYS_ONLY" },
    });
    call(db, "CreateTable", request);
}

/// Returns the items that the index `by-owner` contains for the owner `ann`, each as `pk=v`.
async fn of_ann(db: &DynamoDb) -> Vec<String> {
    let query = db.client().query().table_name("things").index_name("by-owner");
    let query = query.key_condition_expression("#o = :o").expression_attribute_names("#o", "owner");
    let found = query.expression_attribute_values(":o", s("ann")).send().await.unwrap();
    let text = |item: &std::collections::HashMap<String, AttributeValue>, name: &str| {
        item[name].as_s().unwrap().clone()
    };
    found.items().iter().map(|item| format!("{}={}", text(item, "pk"), text(item, "v"))).collect()
}

fn owned(key: &str, owner: &str, value: &str) -> Value {
    json!({ "pk": { "S": key }, "owner": { "S": owner }, "v": { "S": value } })
}

#[tokio::test]
async fn stale_index_read_omits_the_latest_writes() {
    let (db, faults, clock) = indexed();
    put(&db, "things", owned("a", "ann", "1"));
    put(&db, "things", owned("b", "ann", "1"));
    put(&db, "things", owned("c", "bob", "1"));
    clock.advance(Duration::from_secs(10));
    // Item `a` is changed twice, `b` is deleted, and `c` moves from bob to ann.
    put(&db, "things", owned("a", "ann", "2"));
    put(&db, "things", owned("a", "ann", "3"));
    call(&db, "DeleteItem", json!({ "TableName": "things", "Key": { "pk": { "S": "b" } } }));
    put(&db, "things", owned("c", "ann", "2"));
    let now = ["a=3", "c=2"];
    assert_eq!(of_ann(&db).await, now);

    let stale = faults
        .add(Fault::stale(Call::dynamodb("Query").on("things").index("by-owner"), Duration::from_secs(1)));
    let ledger = db.ledger();
    assert_eq!(of_ann(&db).await, ["a=1", "b=1"]);
    assert_eq!(ledger.take().to_string(), "Query things/by-owner: 0.5 RCU");
    assert_eq!((stored(&db), stale.hits()), (2, 1), "a read of the table itself is not stale");
    clock.advance(Duration::from_secs(1));
    assert_eq!(of_ann(&db).await, now, "a stale read includes a write whose age equals the lag");
    put(&db, "things", owned("a", "bob", "4"));
    put(&db, "things", owned("a", "ann", "5"));
    assert_eq!(of_ann(&db).await, now);
    drop(stale);
    assert_eq!(of_ann(&db).await, ["a=5", "c=2"], "a stale read leaves the index unchanged");
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let shards = streams.shards(&arn).unwrap();
    let records: usize = shards.iter().map(|shard| streams.read(&arn, shard, None, 100).unwrap().len()).sum();
    assert_eq!(records, 9, "a stale read emits no stream record");
}

#[tokio::test]
async fn stale_read_of_a_recreated_table_ignores_changes_of_the_deleted_table() {
    let (db, faults, clock) = indexed();
    put(&db, "things", owned("a", "ann", "1"));
    call(&db, "DeleteTable", json!({ "TableName": "things" }));
    index_table(&db);
    put(&db, "things", owned("b", "ann", "1"));
    clock.advance(Duration::from_secs(2));
    put(&db, "things", owned("c", "ann", "1"));
    let _stale = faults.add(Fault::stale(Call::any_dynamodb(), Duration::from_secs(1)));
    assert_eq!(of_ann(&db).await, ["b=1"]);
}

#[tokio::test]
async fn stale_read_of_a_recreated_index_ignores_changes_of_the_deleted_index() {
    let (db, faults, clock) = indexed();
    put(&db, "things", owned("a", "ann", "1"));
    put(&db, "things", owned("b", "ann", "1"));
    clock.advance(Duration::from_secs(10));
    call(&db, "DeleteItem", json!({ "TableName": "things", "Key": { "pk": { "S": "b" } } }));
    let change = |update: Value| {
        let attributes = json!([
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "owner", "AttributeType": "S" },
        ]);
        let request = json!({
            "TableName": "things",
            "AttributeDefinitions": attributes,
            "GlobalSecondaryIndexUpdates": [update],
        });
        call(&db, "UpdateTable", request);
    };
    change(json!({ "Delete": { "IndexName": "by-owner" } }));
    let stale = faults.add(Fault::stale(Call::any_dynamodb(), Duration::from_secs(1)));
    let query = db.client().query().table_name("things").index_name("by-owner");
    let query = query.key_condition_expression("#o = :o").expression_attribute_names("#o", "owner");
    let error = query.expression_attribute_values(":o", s("ann")).send().await.unwrap_err();
    assert_eq!((status(&error), stale.hits()), (400, 0));
    change(json!({ "Create": {
        "IndexName": "by-owner",
        "KeySchema": [{ "AttributeName": "owner", "KeyType": "HASH" }],
        "Projection": { "ProjectionType": "ALL" },
    } }));
    assert_eq!(
        of_ann(&db).await,
        ["a=1"],
        "a stale read does not undo changes made before the index was created"
    );
    put(&db, "things", owned("a", "ann", "2"));
    assert_eq!(
        of_ann(&db).await,
        ["a=1"],
        "a stale read does not show the latest write to the recreated index"
    );
}

#[tokio::test]
async fn stale_fault_does_not_apply_to_a_local_index_read() {
    let (clock, faults) = (TestClock::new(), Faults::default());
    let db = builder(&clock).faults(faults.clone()).in_memory().unwrap();
    let request = json!({
        "TableName": "things",
        "KeySchema": [
            { "AttributeName": "owner", "KeyType": "HASH" },
            { "AttributeName": "pk", "KeyType": "RANGE" },
        ],
        "AttributeDefinitions": [
            { "AttributeName": "owner", "AttributeType": "S" },
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "v", "AttributeType": "S" },
        ],
        "LocalSecondaryIndexes": [{
            "IndexName": "by-owner",
            "KeySchema": [
                { "AttributeName": "owner", "KeyType": "HASH" },
                { "AttributeName": "v", "KeyType": "RANGE" },
            ],
            "Projection": { "ProjectionType": "ALL" },
        }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    call(&db, "CreateTable", request);
    put(&db, "things", owned("a", "ann", "1"));
    let stale = faults.add(Fault::stale(Call::any_dynamodb(), HOUR));
    assert_eq!(of_ann(&db).await, ["a=1"]);
    assert_eq!(stale.hits(), 0);
}

#[tokio::test]
async fn batch_with_one_refused_table_serves_the_other_tables() {
    let (db, faults, _) = database();
    create_table(&db, "others", None);
    let write = |key: &str| {
        let put = PutRequest::builder().item("pk", s(key)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let keys =
        |key: &str| KeysAndAttributes::builder().keys([("pk".to_owned(), s(key))].into()).build().unwrap();
    for fault in [Fault::throttle as fn(Call) -> Fault, Fault::fail] {
        let refused = faults.add(fault(Call::any_dynamodb().on("others")));
        let ledger = db.ledger();
        let batch = || db.client().batch_write_item().request_items("others", vec![write("a"), write("b")]);
        let written = batch().request_items("things", vec![write("a")]).send().await.unwrap();
        assert_eq!(written.unprocessed_items().unwrap().keys().collect::<Vec<_>>(), ["others"]);
        assert_eq!(written.unprocessed_items().unwrap()["others"], [write("a"), write("b")]);
        assert_eq!(ledger.take().to_string(), "BatchWriteItem things: 1 WCU");
        let read = db.client().batch_get_item().request_items("others", keys("a"));
        let read = read.request_items("things", keys("a")).send().await.unwrap();
        assert_eq!(read.responses().unwrap()["things"].len(), 1);
        assert_eq!(read.unprocessed_keys().unwrap()["others"].keys(), keys("a").keys());
        assert_eq!(refused.hits(), 2);
        batch().send().await.expect_err("a batch that names only the refused table fails");
        drop(refused);
        let _all = faults.add(fault(Call::dynamodb("BatchWriteItem")));
        batch().request_items("things", vec![write("a")]).send().await.unwrap_err();
        assert_eq!(call(&db, "Scan", json!({ "TableName": "others" }))["Count"], 0);
        call(&db, "DeleteItem", json!({ "TableName": "things", "Key": { "pk": { "S": "a" } } }));
    }
}

#[tokio::test]
async fn lost_dynamodb_answer_over_http_closes_the_connection() {
    let (db, faults, _) = database();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = db.router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let post = async |key: &str| {
        let body = json!({ "TableName": "things", "Item": { "pk": { "S": key } } }).to_string();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: DynamoDB_20120810.PutItem\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let lost = faults.add(Fault::lose_answer(Call::dynamodb("PutItem")).times(1));
    assert_eq!(post("a").await, "", "the connection of a lost answer closes before a byte is sent");
    assert_eq!((lost.hits(), stored(&db)), (1, 1));
    let throttled = faults.add(Fault::throttle(Call::dynamodb("PutItem")));
    let answer = post("b").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("ThrottlingException"), "{answer}");
    drop(throttled);
    assert!(post("b").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(stored(&db), 2);
    server.abort();
}

#[tokio::test]
async fn stale_fault_applies_to_the_indexes_of_a_reopened_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, faults) = (TestClock::new(), Faults::default());
    let db = builder(&clock).open(dir.path()).unwrap();
    index_table(&db);
    put(&db, "things", owned("a", "ann", "1"));
    drop(db);
    let db = builder(&clock).faults(faults.clone()).open(dir.path()).unwrap();
    put(&db, "things", owned("a", "ann", "2"));
    let _stale = faults.add(Fault::stale(Call::any_dynamodb(), HOUR));
    assert_eq!(of_ann(&db).await, ["a=1"]);
    clock.advance(HOUR);
    assert_eq!(of_ann(&db).await, ["a=2"]);
}
