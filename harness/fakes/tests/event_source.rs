//! Tests of the event source mapping with a stream in memory and a closure as function, in paused time.
//! `docs/fidelity.md` names the tests of each documented behavior of AWS.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "event_source/stage.rs"]
mod stage;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::ports::{Clock, SystemEntropy, Timestamp};
use streamer_fakes::dynamodb::DynamoDb;
use streamer_fakes::event_source::{
    Backoff, FilterPattern, LogFailures, OnFailure, SendFailures, Settings, StartingPosition,
};
use streamer_fakes::faults::{Call, Fault};
use streamer_fakes::lambda::InvokeError;
use streamer_fakes::sqs::Queues;
use tokio::time::{sleep, timeout};

use stage::{START, STREAM, checkpoint, failed_items, run, run_slow, settings, stream, succeed, unhandled};

/// Clock whose time changes only when a test sets it.
#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn queues() -> Queues {
    let clock = Arc::new(ManualClock(Mutex::new(START)));
    Queues::in_memory(clock, Arc::new(SystemEntropy::new()), "us-east-1", "000000000000").unwrap()
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_delivered_immediately_and_a_shard_is_polled_four_times_a_second() {
    let stream = stream(5);
    let later = async {
        sleep(Duration::from_millis(300)).await;
        stream.put("shard", 6, START);
    };
    let run = run(Settings { batch_size: 2, ..settings() }, &stream, 2, succeed);
    let (run, ()) = tokio::join!(run, later);
    assert_eq!(run.calls, [(0, vec![1, 2]), (0, vec![3, 4]), (0, vec![5]), (500, vec![6])]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("6"));
}

#[tokio::test(start_paused = true)]
async fn partial_batch_is_delivered_at_the_end_of_its_batching_window() {
    let stream = stream(1);
    let later = async {
        for number in 2..=5 {
            sleep(Duration::from_millis(1_100)).await;
            stream.put("shard", number, START);
        }
    };
    let window = Duration::from_secs(3);
    let run = run(Settings { maximum_batching_window: window, ..settings() }, &stream, 10, succeed);
    let (run, ()) = tokio::join!(run, later);
    assert_eq!(run.calls, [(3_000, vec![1, 2, 3]), (6_500, vec![4, 5])]);
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_delivered_before_the_end_of_its_batching_window() {
    let stream = stream(4);
    let run = run(
        Settings { maximum_batching_window: Duration::from_secs(300), batch_size: 3, ..settings() },
        &stream,
        299,
        succeed,
    );
    assert_eq!(run.await.calls, [(0, vec![1, 2, 3])]);
}

#[tokio::test(start_paused = true)]
async fn batch_item_failures_in_a_reply_are_ignored_unless_reporting_is_enabled() {
    let stream = stream(3);
    let run = run(settings(), &stream, 5, |numbers, _| failed_items(numbers)).await;
    assert_eq!(run.batches(), [[1, 2, 3]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn unknown_item_identifier_in_a_reply_retries_the_whole_batch() {
    let settings = Settings { report_batch_item_failures: true, ..settings() };
    let stream = stream(3);
    let run =
        run(settings, &stream, 5, |_, nth| if nth == 1 { failed_items(&[3, 99]) } else { failed_items(&[]) });
    assert_eq!(run.await.batches(), [[1, 2, 3], [1, 2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn records_from_the_lowest_reported_failure_on_are_retried() {
    let settings = Settings { report_batch_item_failures: true, ..settings() };
    let stream = stream(4);
    let seen = Arc::clone(&stream);
    let run = run(settings, &stream, 5, move |_, nth| {
        if nth == 1 {
            return failed_items(&[4, 3]);
        }
        assert_eq!(
            checkpoint(&seen).as_deref(),
            Some("2"),
            "the checkpoint is at the record before the lowest reported failure"
        );
        succeed(&[], nth)
    });
    assert_eq!(run.await.batches(), [vec![1, 2, 3, 4], vec![3, 4]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn three_retry_attempts_are_four_invocations_with_doubling_backoff() {
    let settings = Settings { maximum_retry_attempts: Some(3), batch_size: 2, ..settings() };
    let stream = stream(3);
    let run =
        run(settings, &stream, 30, |numbers, _| if numbers == [1, 2] { unhandled() } else { Ok(json!({})) });
    let run = run.await;
    assert_eq!(run.batches(), [vec![1, 2], vec![1, 2], vec![1, 2], vec![1, 2], vec![3]]);
    assert_eq!(run.times(), [0, 250, 750, 1_750, 1_750]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn throttled_invocations_do_not_count_as_retry_attempts() {
    let stream = stream(1);
    let settings = Settings { maximum_retry_attempts: Some(1), ..settings() };
    let run = run(settings, &stream, 60, |_, nth| match nth {
        1 | 3 => Err(InvokeError::Throttled),
        2 => Err(InvokeError::Service),
        4 => Err(InvokeError::NotFound("processor".to_owned())),
        _ => unhandled(),
    });
    let run = run.await;
    assert_eq!(run.times(), [0, 250, 750, 1_750, 3_750, 4_000]);
    assert_eq!(run.failures[0].request_context.approximate_invoke_count, 2);
}

#[tokio::test(start_paused = true)]
async fn retries_without_a_limit_end_when_the_record_is_24_hours_old() {
    let run = run(settings(), &stream(1), 25 * 3_600, |_, _| unhandled()).await;
    assert_eq!(&run.times()[..8], [0, 250, 750, 1_750, 3_750, 7_750, 15_750, 31_750]);
    let (day, minute) = (24 * 3_600_000, 60_000);
    let last = *run.times().last().unwrap();
    assert!(
        (day - minute..=day).contains(&last),
        "the last retry takes place in the last minute before the record is 24 hours old; actual time: {last} ms"
    );
    assert_eq!(run.calls.len(), 8 + 24 * 60 - 1);
    assert_eq!(run.failures.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn maximum_record_age_is_capped_at_the_stream_retention_of_24_hours() {
    let week = Some(Duration::from_secs(604_800));
    let settings = Settings { maximum_record_age: week, ..settings() };
    let stream = stream(0);
    stream.put("shard", 1, Timestamp::from_secs(START.as_secs() - 24 * 3_600 - 1));
    let run = run(settings, &stream, 60, |_, _| unhandled()).await;
    assert_eq!((run.calls.len(), run.failures.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn idle_event_source_mapping_polls_at_the_next_poll_interval_after_a_change() {
    let stream = stream(1);
    stream.reports_changes.store(true, Ordering::Relaxed);
    let polls = || stream.polls.load(Ordering::Relaxed);
    let days = 8 * 24 * 3_600;
    let later = async {
        sleep(Duration::from_secs(1)).await;
        let before = polls();
        assert!(before <= 3, "{before}");
        sleep(Duration::from_secs(days)).await;
        assert_eq!(polls(), before, "the mapping does not poll an unchanged stream");
        sleep(Duration::from_millis(100)).await;
        stream.put("shard", 2, START + Duration::from_secs(days));
        stream.close("shard");
        stream.add_child("shard", "child");
        sleep(Duration::from_secs(5)).await;
        stream.put("child", 3, START + Duration::from_secs(days));
    };
    let (run, ()) = tokio::join!(run(settings(), &stream, days + 10, succeed), later);
    let day = u128::from(days) * 1_000;
    assert_eq!(run.calls, [(0, vec![1]), (day + 1_250, vec![2]), (day + 6_250, vec![3])]);
}

#[tokio::test(start_paused = true)]
async fn reader_of_a_removed_shard_ends_without_saving_a_checkpoint() {
    let stream = stream(0);
    // The record reaches the retention of 24 hours after one minute.
    stream.put("shard", 1, Timestamp::from_secs(START.as_secs() - 24 * 3_600 + 60));
    stream.reports_changes.store(true, Ordering::Relaxed);
    let later = async {
        sleep(Duration::from_secs(1)).await;
        stream.close("shard");
        sleep(Duration::from_secs(9)).await;
        stream.trim("shard");
        sleep(Duration::from_secs(1)).await;
        stream.polls.store(0, Ordering::Relaxed);
    };
    let (run, ()) = tokio::join!(run(settings(), &stream, 200, |_, _| unhandled()), later);
    assert_eq!((run.failures.len(), checkpoint(&stream)), (1, None));
    assert_eq!(
        stream.polls.load(Ordering::Relaxed),
        1,
        "after the reader has stopped, the mapping lists the shards once and reads nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn stream_read_that_fails_by_an_injected_fault_is_repeated() {
    let stream = stream(1);
    let impossible = stream.faults.add(Fault::lose_answer(Call::records("t")));
    let throttle = stream.faults.add(Fault::throttle(Call::records("t")).times(2));
    let fail = stream.faults.add(Fault::fail(Call::records("t").by("processor")).times(1));
    let twice = stream.faults.add(Fault::duplicate(Call::records("t")).times(1));
    let run = run(settings(), &stream, 5, succeed).await;
    assert_eq!(run.calls, [(750, vec![1]), (750, vec![1])]);
    assert_eq!((impossible.hits(), throttle.hits(), fail.hits(), twice.hits()), (0, 2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn duplicate_deliveries_run_concurrently_and_a_child_shard_waits_for_both_deliveries() {
    let stream = stream(1);
    stream.close("shard");
    stream.add_child("shard", "child");
    stream.put("child", 2, START);
    let _twice = stream.faults.add(Fault::duplicate(Call::records("t")).times(1));
    let reply = |_: &[u32], nth| if nth == 1 { unhandled() } else { Ok(json!({})) };
    let run = run_slow(settings(), &stream, 20, Duration::from_secs(3), reply).await;
    assert_eq!(run.batches(), [[1], [1], [1], [2]]);
    assert_eq!(&run.times()[..3], [0, 0, 3_250]);
    assert!(run.times()[3] >= 6_250, "the child shard is read after both deliveries have ended");
}

#[tokio::test(start_paused = true)]
async fn bisecting_a_batch_does_not_use_up_retry_attempts() {
    let settings =
        Settings { bisect_batch_on_function_error: true, maximum_retry_attempts: Some(1), ..settings() };
    let stream = stream(4);
    let run = run(
        settings,
        &stream,
        30,
        |numbers, _| if numbers.contains(&3) { unhandled() } else { Ok(json!({})) },
    );
    let run = run.await;
    assert_eq!(run.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![3, 4], vec![3], vec![3], vec![4]]);
    let failed = &run.failures[0].batch_info;
    assert_eq!((&*failed.start_sequence_number, failed.batch_size), ("3", 1));
    assert_eq!(checkpoint(&stream).as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn bisected_batch_is_split_at_the_reported_sequence_number() {
    let stream = stream(4);
    let settings = Settings {
        bisect_batch_on_function_error: true,
        report_batch_item_failures: true,
        maximum_retry_attempts: Some(0),
        ..settings()
    };
    let run = run(settings, &stream, 30, |numbers, _| {
        let bad: Vec<_> = numbers.iter().copied().filter(|number| *number == 3).collect();
        failed_items(&bad)
    });
    let run = run.await;
    assert_eq!(run.batches(), [vec![1, 2, 3, 4], vec![3, 4], vec![3], vec![4]]);
    assert_eq!(run.failures[0].response_context.as_ref().unwrap().function_error, None);
}

#[tokio::test(start_paused = true)]
async fn failure_record_of_exhausted_retries_has_the_fields_of_aws() {
    let stream = stream(2);
    let run =
        run(Settings { maximum_retry_attempts: Some(0), ..settings() }, &stream, 1, |_, _| unhandled()).await;
    let expected = json!({
        "requestContext": {
            "requestId": run.ids[0],
            "functionArn": "arn:processor",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 1
        },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "version": "1.0",
        "timestamp": "2026-03-01T00:00:00.000Z",
        "DDBStreamBatchInfo": {
            "shardId": "shard",
            "startSequenceNumber": "1",
            "endSequenceNumber": "2",
            "approximateArrivalOfFirstRecord": "2026-03-01T00:00:00.000Z",
            "approximateArrivalOfLastRecord": "2026-03-01T00:00:00.000Z",
            "batchSize": 2,
            "streamArn": STREAM
        }
    });
    assert_eq!(serde_json::to_value(&run.failures).unwrap(), json!([expected]));
    assert_eq!(run.ids, ["01010101-0101-4101-8101-010101010101"]);
    LogFailures.give_up(run.failures[0].clone());
}

#[tokio::test(start_paused = true)]
async fn failure_record_of_expired_records_has_no_response_context() {
    let stream = stream(1);
    stream.put("shard", 2, START + Duration::from_secs(30));
    let settings = Settings { maximum_record_age: Some(Duration::from_secs(60)), ..settings() };
    let run = run(settings, &stream, 600, |_, _| unhandled()).await;
    assert_eq!(run.batches().last().unwrap(), &[2]);
    let expired: Vec<_> = run
        .failures
        .iter()
        .map(|failure| serde_json::to_value(failure).unwrap())
        .map(|failure| {
            assert!(!failure.as_object().unwrap().contains_key("responseContext"));
            assert_eq!(failure["requestContext"]["condition"], "RecordAgeExceeded");
            failure["DDBStreamBatchInfo"]["startSequenceNumber"].clone()
        })
        .collect();
    assert_eq!(expired, ["1", "2"]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn records_matching_any_filter_are_delivered_and_the_others_are_checkpointed() {
    let stream = stream(5);
    let filter = |pattern| FilterPattern::parse(pattern).unwrap();
    let insert = filter(r#"{"eventName": ["INSERT"]}"#);
    let third = filter(r#"{"dynamodb": {"SequenceNumber": ["3"]}}"#);
    let run = run(Settings { filters: vec![insert, third], ..settings() }, &stream, 1, succeed).await;
    assert_eq!(run.batches(), [[2, 3, 4]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn parallel_lanes_process_items_concurrently_and_the_records_of_each_item_in_order() {
    let stream = stream(0);
    for number in 1..=40 {
        stream.put_item("shard", number, START, &format!("item {}", number % 8));
    }
    let settings = Settings { parallelization_factor: 10, batch_size: 1, ..settings() };
    let blocked = |numbers: &[u32], _| if numbers[0] % 8 == 1 { unhandled() } else { Ok(json!({})) };
    let run = run_slow(settings, &stream, 30, Duration::from_millis(100), blocked).await;
    for item in 0..8 {
        let of_item: Vec<_> = run.batches().into_iter().map(|b| b[0]).filter(|n| n % 8 == item).collect();
        assert!(of_item.is_sorted(), "{of_item:?}");
        assert!(item == 1 || of_item.len() <= 5, "{of_item:?}");
    }
    assert!(run.times().iter().filter(|at| **at == 0).count() > 1, "several lanes start concurrently");
    assert!(
        run.batches().contains(&vec![40]) || run.batches().contains(&vec![39]),
        "the failing item does not block other lanes"
    );
    assert_eq!(checkpoint(&stream), None, "the unfinished first record holds back the checkpoint");
}

#[tokio::test(start_paused = true)]
async fn failing_batch_blocks_its_shard_but_not_other_shards() {
    let stream = stream(2);
    stream.put("other", 7, START);
    let settings = Settings { batch_size: 1, ..settings() };
    let run =
        run(settings, &stream, 5, |numbers, _| if numbers == [1] { unhandled() } else { Ok(json!({})) });
    let batches = run.await.batches();
    assert!(!batches.contains(&vec![2]));
    assert!(batches.contains(&vec![7]));
}

#[tokio::test(start_paused = true)]
async fn unlimited_retries_within_a_record_age_of_60_s_are_8_invocations() {
    let settings = Settings { maximum_record_age: Some(Duration::from_secs(60)), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!(run.calls.len(), 8, "the number of invocations equals the number observed on AWS");
    assert_eq!(run.failures[0].request_context.approximate_invoke_count, 8);
}

#[tokio::test(start_paused = true)]
async fn backoff_of_an_event_source_mapping_is_configurable() {
    let backoff = Backoff { initial: Duration::from_secs(2), maximum: Duration::from_secs(5) };
    let settings = Settings { backoff, maximum_retry_attempts: Some(3), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!(run.times(), [0, 2_000, 6_000, 11_000]);
}

#[tokio::test(start_paused = true)]
async fn failed_batch_with_zero_retry_attempts_is_delivered_only_once() {
    let settings = Settings { maximum_retry_attempts: Some(0), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!((run.calls.len(), run.failures.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn failure_record_has_the_request_id_of_the_last_invocation() {
    let settings = Settings { maximum_retry_attempts: Some(2), ..settings() };
    let run = run(settings, &stream(1), 60, |_, _| unhandled()).await;
    assert_eq!(run.ids.len(), 3);
    assert_eq!(Some(&run.failures[0].request_context.request_id), run.ids.last());
    assert_ne!(run.ids[1], run.ids[2]);
}

#[tokio::test(start_paused = true)]
async fn failure_record_is_sent_to_a_queue() {
    let queues = queues();
    queues.create("failures", []).unwrap();
    let send = SendFailures::new(Arc::new(queues.clone()), queues.arn("failures"));
    let stream = stream(3);
    let settings =
        Settings { maximum_retry_attempts: Some(1), report_batch_item_failures: true, ..settings() };
    let reply = |numbers: &[u32], _| if numbers.contains(&3) { failed_items(&[2]) } else { Ok(json!({})) };
    // A failure record for a missing queue is logged, without a panic.
    let missing = SendFailures::new(Arc::new(queues.clone()), queues.arn("none"));
    for record in run(settings, &stream, 60, reply).await.failures {
        missing.give_up(record.clone());
        send.give_up(record);
    }
    let messages = queues.messages("failures").unwrap();
    let bodies: Vec<_> = messages.iter().map(|message| &*message.body).collect();
    insta::assert_snapshot!(bodies.join("\n"), @r#"{"requestContext":{"requestId":"02020202-0202-4202-8202-020202020202","functionArn":"arn:processor","condition":"RetryAttemptsExhausted","approximateInvokeCount":2},"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":null},"version":"1.0","timestamp":"2026-03-01T00:00:00.250Z","DDBStreamBatchInfo":{"shardId":"shard","startSequenceNumber":"2","endSequenceNumber":"3","approximateArrivalOfFirstRecord":"2026-03-01T00:00:00.000Z","approximateArrivalOfLastRecord":"2026-03-01T00:00:00.000Z","batchSize":2,"streamArn":"arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-03-01T00:00:00.000"}}"#);
}

#[tokio::test(start_paused = true)]
async fn child_shard_is_read_only_after_its_parent_is_fully_processed() {
    let stream = stream(2);
    stream.add_child("shard", "child a");
    stream.add_child("child a", "grandchild");
    stream.put("child a", 3, START);
    stream.put("grandchild", 4, START);
    stream.put("unrelated", 5, START);
    let later = async {
        sleep(Duration::from_secs(2)).await;
        stream.put("shard", 6, START);
        stream.close("shard");
        stream.close("child a");
    };
    let settings = Settings { batch_size: 1, ..settings() };
    let reply = |numbers: &[u32], nth| if numbers == [6] && nth < 8 { unhandled() } else { Ok(json!({})) };
    let (run, ()) = tokio::join!(run(settings.clone(), &stream, 20, reply), later);
    let mut batches = run.batches();
    batches.dedup();
    let numbers: Vec<_> = batches.iter().map(|batch| batch[0]).filter(|number| *number != 5).collect();
    assert_eq!(numbers, [1, 2, 6, 3, 4], "records of a parent come before records of its children");
    assert!(batches.contains(&vec![5]), "a shard without a parent is read without waiting");
    let retried = run.calls.iter().filter(|(_, batch)| *batch == [6]).count();
    assert!(retried > 1, "the parent's last record is retried while the child waits");
    // After a restart, no record is delivered again, and the grandchild's new record is read immediately.
    stream.put("grandchild", 7, START);
    assert_eq!(self::run(settings, &stream, 5, succeed).await.batches(), [[7]]);
}

#[tokio::test(start_paused = true)]
async fn child_shard_of_a_removed_parent_is_read() {
    let stream = stream(0);
    stream.add_child("trimmed long ago", "child");
    stream.put("child", 1, START);
    assert_eq!(run(settings(), &stream, 5, succeed).await.batches(), [[1]]);
}

#[tokio::test(start_paused = true)]
async fn starting_position_latest_loses_no_record_to_a_shard_split() {
    let stream = stream(2);
    let latest = Settings { starting_position: StartingPosition::Latest, ..settings() };
    let later = async {
        sleep(Duration::from_secs(1)).await;
        stream.put("shard", 3, START);
        stream.close("shard");
        stream.add_child("shard", "child");
        stream.put("child", 4, START);
    };
    let (run, ()) = tokio::join!(run(latest, &stream, 5, succeed), later);
    assert_eq!(run.batches(), [[3], [4]]);
}

#[tokio::test(start_paused = true)]
async fn delivery_of_stream_records_is_duplicated_or_delayed_by_faults() {
    let stream = stream(3);
    let twice = stream.faults.add(Fault::duplicate(Call::records("t")).after(1).times(1));
    let late = stream.faults.add(Fault::delay(Call::records("t").by("processor"), Duration::from_secs(3)));
    let _other = stream.faults.add(Fault::duplicate(Call::records("another table")));
    let settings = Settings { batch_size: 1, ..settings() };
    let run = run(settings, &stream, 60, succeed).await;
    assert_eq!(run.batches(), [[1], [2], [2], [3]]);
    assert_eq!(run.times(), [3_000, 6_000, 6_000, 9_000]);
    assert_eq!((twice.hits(), late.hits()), (1, 3));
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn batch_is_delivered_when_its_payload_reaches_6_mb() {
    let stream = stream(0);
    for number in 1..=3 {
        stream.put_item("shard", number, START, &"x".repeat(3 * 1_024 * 1_024 - 400));
    }
    let window = Settings { maximum_batching_window: Duration::from_secs(300), ..settings() };
    let run = run(window, &stream, 400, succeed).await;
    assert_eq!(run.calls, [(0, vec![1, 2]), (300_000, vec![3])]);
}

#[test]
fn event_source_mapping_with_more_than_five_filters_is_rejected() {
    let pattern = FilterPattern::parse(r#"{"eventName": ["INSERT"]}"#).unwrap();
    for (count, expected) in [(5, true), (6, false)] {
        let settings = Settings { filters: vec![pattern.clone(); count], ..settings() };
        assert_eq!(stage::mapping(settings).is_ok(), expected, "{count}");
    }
}

#[test]
fn undocumented_filter_operators_are_rejected_if_the_settings_disallow_them() {
    for (condition, expected) in [
        (r#"{"suffix": "x"}"#, false),
        (r#"{"equals-ignore-case": "x"}"#, false),
        (r#"{"anything-but": {"suffix": "x"}}"#, false),
        (r#"{"prefix": "x"}"#, true),
    ] {
        let pattern =
            FilterPattern::parse(&format!(r#"{{"$or": [{{"a": {{"b": [{condition}]}}}}]}}"#)).unwrap();
        for allowed in [true, false] {
            let settings =
                Settings { filters: vec![pattern.clone()], undocumented_operators: allowed, ..settings() };
            assert_eq!(stage::mapping(settings).is_ok(), allowed || expected, "{condition}");
        }
    }
}

/// Creates a database with the table `table`, which has a stream and a time to live, and a manual clock.
fn database() -> (DynamoDb, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock(Mutex::new(START)));
    let db = DynamoDb::builder().clock(clock.clone()).in_memory().unwrap();
    let table = json!({
        "TableName": "table", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    });
    call(&db, "CreateTable", &table);
    let ttl = json!({"AttributeName": "ttl", "Enabled": true});
    call(&db, "UpdateTimeToLive", &json!({"TableName": "table", "TimeToLiveSpecification": ttl}));
    (db, clock)
}

fn call(db: &DynamoDb, operation: &str, body: &Value) {
    let answer = db.handle(&format!("DynamoDB_20120810.{operation}"), body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Returns the records of the table's stream, in the form in which a function receives them.
fn events(db: &DynamoDb) -> Vec<Value> {
    let arn = db.streams().latest_stream_arn("table").unwrap();
    let shards = db.streams().shard_infos(&arn).unwrap().into_iter();
    let records = shards.flat_map(|shard| db.streams().read(&arn, &shard.id, None, 100).unwrap());
    records.map(|record| record.to_event_record()).collect()
}

#[tokio::test]
async fn stream_record_of_a_put_has_exactly_the_fields_that_aws_sends() {
    let (db, _) = database();
    let item = json!({"id": {"S": "a"}, "n": {"N": "1"}});
    call(&db, "PutItem", &json!({"TableName": "table", "Item": item}));
    let [event] = &events(&db)[..] else { panic!("one write produces one record") };
    let id = event["eventID"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let number = event["dynamodb"]["SequenceNumber"].as_str().unwrap();
    assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{number}");
    let expected = json!({
        "eventID": id,
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_772_323_200.0,
            "Keys": {"id": {"S": "a"}},
            "NewImage": item,
            "SequenceNumber": number,
            // The key attribute counts twice (2 + 1 bytes each), and `n` once with its value (1 + 2 bytes).
            "SizeBytes": 9,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": db.streams().latest_stream_arn("table"),
    });
    assert_eq!(*event, expected);
}

#[tokio::test]
async fn filter_distinguishes_time_to_live_deletions_from_other_deletions() {
    let (db, clock) = database();
    let expiry = (START.as_secs() + 60).to_string();
    for id in ["deleted", "expired"] {
        let item = json!({"id": {"S": id}, "ttl": {"N": expiry}});
        call(&db, "PutItem", &json!({"TableName": "table", "Item": item}));
    }
    call(&db, "DeleteItem", &json!({"TableName": "table", "Key": {"id": {"S": "deleted"}}}));
    *clock.0.lock().unwrap() = START + Duration::from_secs(120);
    db.sweep_expired().unwrap();
    let by_ttl = r#"{"userIdentity": {"type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]}}"#;
    let by_ttl = FilterPattern::parse(by_ttl).unwrap();
    let found: Vec<_> = events(&db).into_iter().filter(|event| by_ttl.matches(event)).collect();
    let [event] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&event["eventName"], &event["dynamodb"]["Keys"]["id"]["S"]),
        (&json!("REMOVE"), &json!("expired"))
    );
}

#[tokio::test(start_paused = true)]
async fn starting_position_latest_skips_existing_records_and_a_restart_loses_no_new_record() {
    let stream = stream(3);
    let latest = || Settings { starting_position: StartingPosition::Latest, ..settings() };
    assert_eq!(run(latest(), &stream, 1, succeed).await.batches(), Vec::<Vec<u32>>::new());
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
    stream.put("shard", 4, START);
    stream.put("appeared between the runs", 8, START);
    let later = async {
        sleep(Duration::from_secs(1)).await;
        stream.put("a shard that appears later", 9, START);
    };
    let (run, ()) = tokio::join!(run(latest(), &stream, 3, succeed), later);
    let mut batches = run.batches();
    batches.sort_unstable();
    assert_eq!(batches, [[4], [8], [9]]);
}

#[tokio::test(start_paused = true)]
async fn starting_position_latest_delivers_the_first_record_written_after_the_start() {
    let stream = stream(0);
    let later = async {
        sleep(Duration::from_secs(1)).await;
        stream.put("shard", 1, START);
    };
    let latest = Settings { starting_position: StartingPosition::Latest, ..settings() };
    let (run, ()) = tokio::join!(run(latest, &stream, 3, succeed), later);
    assert_eq!(run.batches(), [[1]]);
}

#[tokio::test(start_paused = true)]
async fn records_in_flight_at_shutdown_are_delivered_again_after_a_restart() {
    let stream = stream(2);
    let cut_off = run_slow(settings(), &stream, 1, Duration::from_secs(10), succeed).await;
    assert_eq!(cut_off.batches(), [[1, 2]]);
    assert_eq!(run(settings(), &stream, 1, succeed).await.batches(), [[1, 2]]);
    assert_eq!(run(settings(), &stream, 1, succeed).await.batches(), Vec::<Vec<u32>>::new());
}

#[tokio::test(start_paused = true)]
async fn lane_that_retries_its_first_batch_delivers_all_later_records() {
    let stream = stream(2_500);
    let settings = Settings { batch_size: 1_000, ..settings() };
    let run = run(settings, &stream, 10, |_, nth| if nth == 1 { unhandled() } else { Ok(json!({})) }).await;
    let sizes: Vec<_> = run.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1_000, 1_000, 500]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("2500"));
}

#[tokio::test(start_paused = true)]
async fn stream_is_polled_again_after_a_read_error() {
    let stream = stream(1);
    let outages = async {
        stream.broken.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.broken.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.put("shard", 2, START);
        stream.broken.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.broken.store(false, Ordering::Relaxed);
    };
    let ((), run) = tokio::join!(outages, run(settings(), &stream, 5, succeed));
    assert_eq!(run.batches(), [[1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn disabled_event_source_mapping_invokes_nothing_and_ends_at_shutdown() {
    let stream = stream(1);
    let disabled = run(Settings { enabled: false, ..settings() }, &stream, 5, succeed);
    let run = timeout(Duration::from_secs(6), disabled).await.unwrap();
    assert_eq!(run.calls, []);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a bug in the closure")]
async fn panic_during_an_invocation_is_propagated_by_the_event_source_mapping() {
    run(settings(), &stream(1), 5, |_, _| panic!("a bug in the closure")).await;
}
