//! Requests that the processor dispatches to the worker, and that the worker runs.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::processor::BatchItemFailure;
use streamer::protocol::Frame;
use streamer::store::{Status, StoreErrorKind};
use streamer::worker::Worker;
use streamer::worker::dispatch::WorkerEvent;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::flaky::silent_queue;
use crate::scripted::Bench;
use crate::world::{batch, key};

async fn takes_a_minute(_: Context) -> Result<Value, HandlerError> {
    sleep(Duration::from_mins(1)).await;
    Ok(Value::Null)
}

async fn bench() -> Bench {
    Bench::new(RetryPolicy::attempts(3), takes_a_minute).await
}

/// Returns the batch item failure for a stream record.
fn item_failure(record: &Value) -> BatchItemFailure {
    let number = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
    BatchItemFailure { item_identifier: number.into() }
}

#[tokio::test(start_paused = true)]
async fn worker_only_request_is_dispatched_immediately_without_a_store_call() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    let (item, ledger, began) = (bench.world.item("r1").await, bench.world.db.ledger(), Instant::now());
    assert_eq!(bench.world.process_for(Duration::from_mins(15)).await.batch_item_failures, []);
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    assert_snapshot!(ledger.take(), @"no calls");
    assert_eq!((bench.world.item("r1").await, began.elapsed().as_secs()), (item, 0));

    bench.world.work(key("r1")).await;
    assert_eq!(bench.status("r1").await, Status::Completed);
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
}

/// The stream record shows the request before the request was assigned to the worker.
#[tokio::test(start_paused = true)]
async fn outdated_stream_record_of_a_worker_only_request_still_causes_its_dispatch() {
    let bench = bench().await;
    bench.queue("r1").await;
    let old = bench.world.pending();
    bench.world.edit("r1", "SET runner = :value", AttributeValue::S("worker".into())).await;
    let item = bench.world.item("r1").await;
    let deadline = bench.world.now() + Duration::from_mins(15);
    assert_eq!(bench.world.processor().process(batch(old), deadline).await.batch_item_failures, []);
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    assert_eq!((bench.world.item("r1").await, bench.started()), (item, 0));
}

#[tokio::test(start_paused = true)]
async fn stream_record_whose_dispatch_to_the_worker_fails_is_a_batch_item_failure() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    bench.queue("r2").await;
    let records = bench.world.pending();
    let of = |id: &str| {
        let stored = format!("acme/ann/{id}");
        records.iter().find(|record| record["dynamodb"]["Keys"]["request_id"]["S"] == *stored).unwrap()
    };
    bench.world.dispatched.fail_times(1);
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = bench.world.processor().process(batch(records.clone()), deadline).await;
    assert_eq!(response.batch_item_failures, [item_failure(of("r1"))]);
    assert_eq!((bench.status("r1").await, bench.status("r2").await), (Status::Pending, Status::Completed));

    // The processor dispatches a request that has too little time to run in the invocation. If this dispatch
    // fails, the request's record is reported as well.
    bench.queue("r3").await;
    bench.world.dispatched.fail_times(1);
    let deadline = bench.world.now() + Duration::from_secs(39);
    let last = bench.world.pending().pop().unwrap();
    let response = bench.world.processor().process(batch(vec![last.clone()]), deadline).await;
    assert_eq!(response.batch_item_failures, [item_failure(&last)]);
    assert_eq!((bench.status("r3").await, bench.world.dispatched.keys()), (Status::Pending, vec![]));
}

/// If the processor reported the record as failed, the stream would redeliver the record. The dispatch would
/// be refused again, and the later records of the shard would wait.
#[tokio::test(start_paused = true)]
async fn permanently_refused_dispatch_blocks_no_record_and_is_left_to_the_sweeper() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    bench.queue("r2").await;
    bench.world.dispatched.refuse();
    assert_eq!(bench.world.process_for(Duration::from_mins(15)).await.batch_item_failures, []);
    assert_eq!((bench.status("r1").await, bench.status("r2").await), (Status::Pending, Status::Completed));
    assert!(bench.summary("r1").await.timer_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn request_with_several_stream_records_in_a_batch_is_dispatched_once() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    let record = bench.world.pending().remove(0);
    let mut other = record.clone();
    other["eventName"] = json!("MODIFY");
    let deadline = bench.world.now() + Duration::from_mins(15);
    let records = batch(vec![record.clone(), other, record]);
    assert_eq!(bench.world.processor().process(records, deadline).await.batch_item_failures, []);
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
}

#[tokio::test(start_paused = true)]
async fn request_without_enough_invocation_time_left_is_dispatched_to_the_worker() {
    let bench = bench().await;
    for n in 0..11 {
        bench.queue(&format!("r{n}")).await;
    }
    // Ten requests run concurrently for one minute. Then 40 s are left, of which 10 s are reserved, so that the
    // eleventh request has too little time.
    let response = bench.world.process_for(Duration::from_secs(100)).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!((bench.started(), bench.world.dispatched.keys().len()), (10, 1));
    let left = bench.world.dispatched.keys().remove(0);
    bench.world.work(left).await;
    assert_eq!(bench.frames().iter().filter(|frame| frame.is_terminal()).count(), 11);
}

#[tokio::test(start_paused = true)]
async fn request_dispatched_to_two_workers_is_run_by_exactly_one() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    tokio::join!(bench.world.work(key("r1")), bench.world.work(key("r1")));
    bench.world.work(key("r1")).await;
    assert_eq!((bench.started(), bench.frames().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn worker_ignores_a_missing_request_and_fails_if_the_store_does_not_answer() {
    let bench = bench().await;
    bench.world.work(key("never")).await;
    bench.queue_long("r1").await;
    let worker = Worker::new(bench.world.executor_on(silent_queue(), Handle::current()));
    let began = Instant::now();
    let deadline = bench.world.now() + Duration::from_mins(1);
    let error = worker.run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (StoreErrorKind::Unavailable, 50));
    assert_eq!(bench.started(), 0);
}
