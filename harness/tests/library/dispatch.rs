//! What the processor hands over to the worker, and what the worker makes of it.

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

fn sequence_number(record: &Value) -> BatchItemFailure {
    let number = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
    BatchItemFailure { item_identifier: number.into() }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_workers_is_handed_over_at_once_and_without_a_call_to_the_store() {
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

/// A record that was written before its request became the worker's.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_out_of_date_is_handed_over_all_the_same() {
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
async fn a_record_whose_request_is_not_handed_over_comes_again() {
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
    assert_eq!(response.batch_item_failures, [sequence_number(of("r1"))]);
    assert_eq!((bench.status("r1").await, bench.status("r2").await), (Status::Pending, Status::Completed));

    // As is one that there was no time for.
    bench.queue("r3").await;
    bench.world.dispatched.fail_times(1);
    let deadline = bench.world.now() + Duration::from_secs(39);
    let last = bench.world.pending().pop().unwrap();
    let response = bench.world.processor().process(batch(vec![last.clone()]), deadline).await;
    assert_eq!(response.batch_item_failures, [sequence_number(&last)]);
    assert_eq!((bench.status("r3").await, bench.world.dispatched.keys()), (Status::Pending, vec![]));
}

/// Its record would find it no better, and would hold up whatever comes behind it in its shard.
#[tokio::test(start_paused = true)]
async fn a_hand_over_that_is_refused_for_good_blocks_nobody_and_is_left_to_the_sweeper() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    bench.queue("r2").await;
    bench.world.dispatched.refuse();
    assert_eq!(bench.world.process_for(Duration::from_mins(15)).await.batch_item_failures, []);
    assert_eq!((bench.status("r1").await, bench.status("r2").await), (Status::Pending, Status::Completed));
    assert!(bench.summary("r1").await.timer_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_is_handed_over_once_however_many_of_its_records_are_in_a_batch() {
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
async fn what_would_not_end_in_its_invocation_is_handed_over_while_its_batch_runs() {
    let bench = bench().await;
    for n in 0..11 {
        bench.queue(&format!("r{n}")).await;
    }
    // Ten take a minute; then forty seconds are left, of which ten are kept.
    let response = bench.world.process_for(Duration::from_secs(100)).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!((bench.started(), bench.world.dispatched.keys().len()), (10, 1));
    let left = bench.world.dispatched.keys().remove(0);
    bench.world.work(left).await;
    assert_eq!(bench.frames().iter().filter(|frame| frame.is_terminal()).count(), 11);
}

#[tokio::test(start_paused = true)]
async fn of_two_workers_that_are_handed_the_same_request_one_runs_it() {
    let bench = bench().await;
    bench.queue_long("r1").await;
    tokio::join!(bench.world.work(key("r1")), bench.world.work(key("r1")));
    bench.world.work(key("r1")).await;
    assert_eq!((bench.started(), bench.frames().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_leaves_alone_what_is_not_there_and_says_when_the_store_does_not_answer() {
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
