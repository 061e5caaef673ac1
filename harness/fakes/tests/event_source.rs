//! The event source mapping over a stream in memory and a function that is a closure, in paused time. Each
//! test of a row of AWS-FACTS, section 2, is named after it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

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

/// A clock that stands still.
#[derive(Debug)]
struct Moment(Mutex<Timestamp>);

impl Clock for Moment {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn queues() -> Queues {
    let clock = Arc::new(Moment(Mutex::new(START)));
    Queues::in_memory(clock, Arc::new(SystemEntropy::new()), "us-east-1", "000000000000").unwrap()
}

#[tokio::test(start_paused = true)]
async fn polling_row_a_batch_leaves_on_size_and_a_shard_is_read_four_times_a_second() {
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
async fn polling_row_a_batch_leaves_at_the_end_of_its_window() {
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
async fn polling_row_a_full_batch_does_not_wait_for_its_window() {
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
async fn success_row_replies_are_ignored_unless_failures_are_to_be_reported() {
    let stream = stream(3);
    let run = run(settings(), &stream, 5, |numbers, _| failed_items(numbers)).await;
    assert_eq!(run.batches(), [[1, 2, 3]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn whole_batch_fails_row_an_unusable_identifier_retries_all() {
    let settings = Settings { report_batch_item_failures: true, ..settings() };
    let stream = stream(3);
    let run =
        run(settings, &stream, 5, |_, nth| if nth == 1 { failed_items(&[3, 99]) } else { failed_items(&[]) });
    assert_eq!(run.await.batches(), [[1, 2, 3], [1, 2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn checkpoint_row_everything_from_the_lowest_listed_on_is_retried() {
    let settings = Settings { report_batch_item_failures: true, ..settings() };
    let stream = stream(4);
    let seen = Arc::clone(&stream);
    let run = run(settings, &stream, 5, move |_, nth| {
        if nth == 1 {
            return failed_items(&[4, 3]);
        }
        assert_eq!(checkpoint(&seen).as_deref(), Some("2"), "what comes before it is done");
        succeed(&[], nth)
    });
    assert_eq!(run.await.batches(), [vec![1, 2, 3, 4], vec![3, 4]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn retry_count_row_three_attempts_are_four_invocations_and_backoff_row_they_wait_longer_each_time() {
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
async fn retry_count_row_throttles_do_not_count() {
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
async fn defaults_row_retries_end_only_with_the_streams_24_hours() {
    let run = run(settings(), &stream(1), 25 * 3_600, |_, _| unhandled()).await;
    assert_eq!(&run.times()[..8], [0, 250, 750, 1_750, 3_750, 7_750, 15_750, 31_750]);
    let (day, minute) = (24 * 3_600_000, 60_000);
    let last = *run.times().last().unwrap();
    assert!((day - minute..=day).contains(&last), "one a minute at last, until the record is gone: {last}");
    assert_eq!(run.calls.len(), 8 + 24 * 60 - 1);
    assert_eq!(run.failures.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn record_age_of_more_than_the_streams_24_hours_is_that() {
    let week = Some(Duration::from_secs(604_800));
    let settings = Settings { maximum_record_age: week, ..settings() };
    let stream = stream(0);
    stream.put("shard", 1, Timestamp::from_secs(START.as_secs() - 24 * 3_600 - 1));
    let run = run(settings, &stream, 60, |_, _| unhandled()).await;
    assert_eq!((run.calls.len(), run.failures.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn polling_row_an_idle_mapping_waits_for_a_change_and_keeps_to_the_points_of_its_polls() {
    let stream = stream(1);
    stream.tells.store(true, Ordering::Relaxed);
    let looks = || stream.looks.load(Ordering::Relaxed);
    let days = 8 * 24 * 3_600;
    let later = async {
        sleep(Duration::from_secs(1)).await;
        let before = looks();
        assert!(before <= 3, "{before}");
        sleep(Duration::from_secs(days)).await;
        assert_eq!(looks(), before, "nothing is read while nothing changes");
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
async fn shards_row_the_reader_of_a_shard_that_is_gone_ends_and_leaves_no_checkpoint() {
    let stream = stream(0);
    // It has a minute left.
    stream.put("shard", 1, Timestamp::from_secs(START.as_secs() - 24 * 3_600 + 60));
    stream.tells.store(true, Ordering::Relaxed);
    let later = async {
        sleep(Duration::from_secs(1)).await;
        stream.close("shard");
        sleep(Duration::from_secs(9)).await;
        stream.trim("shard");
        sleep(Duration::from_secs(1)).await;
        stream.looks.store(0, Ordering::Relaxed);
    };
    let (run, ()) = tokio::join!(run(settings(), &stream, 200, |_, _| unhandled()), later);
    assert_eq!((run.failures.len(), checkpoint(&stream)), (1, None));
    assert_eq!(stream.looks.load(Ordering::Relaxed), 1, "its end is noticed, and nothing is read");
}

#[tokio::test(start_paused = true)]
async fn order_row_a_read_that_fails_on_request_is_repeated() {
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
async fn order_row_both_copies_run_side_by_side_and_to_their_end_on_a_closed_shard_too() {
    let stream = stream(1);
    stream.close("shard");
    stream.add_child("shard", "child");
    stream.put("child", 2, START);
    let _twice = stream.faults.add(Fault::duplicate(Call::records("t")).times(1));
    let reply = |_: &[u32], nth| if nth == 1 { unhandled() } else { Ok(json!({})) };
    let run = run_slow(settings(), &stream, 20, Duration::from_secs(3), reply).await;
    assert_eq!(run.batches(), [[1], [1], [1], [2]]);
    assert_eq!(&run.times()[..3], [0, 0, 3_250]);
    assert!(run.times()[3] >= 6_250, "the child waits for both");
}

#[tokio::test(start_paused = true)]
async fn bisect_row_halves_do_not_use_up_the_retry_quota() {
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
    let given_up = &run.failures[0].batch_info;
    assert_eq!((&*given_up.start_sequence_number, given_up.batch_size), ("3", 1));
    assert_eq!(checkpoint(&stream).as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn bisect_row_a_partial_response_splits_at_the_returned_sequence_number() {
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
async fn failure_record_row_retries_exhausted() {
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
async fn failure_record_row_record_age_exceeded_has_no_response() {
    let stream = stream(1);
    stream.put("shard", 2, START + Duration::from_secs(30));
    let settings = Settings { maximum_record_age: Some(Duration::from_secs(60)), ..settings() };
    let run = run(settings, &stream, 600, |_, _| unhandled()).await;
    assert_eq!(run.batches().last().unwrap(), &[2]);
    let told: Vec<_> = run
        .failures
        .iter()
        .map(|failure| serde_json::to_value(failure).unwrap())
        .map(|failure| {
            assert!(!failure.as_object().unwrap().contains_key("responseContext"));
            assert_eq!(failure["requestContext"]["condition"], "RecordAgeExceeded");
            failure["DDBStreamBatchInfo"]["startSequenceNumber"].clone()
        })
        .collect();
    assert_eq!(told, ["1", "2"]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn filters_row_are_ored_and_what_matches_none_is_checkpointed_past() {
    let stream = stream(5);
    let filter = |pattern| FilterPattern::parse(pattern).unwrap();
    let insert = filter(r#"{"eventName": ["INSERT"]}"#);
    let third = filter(r#"{"dynamodb": {"SequenceNumber": ["3"]}}"#);
    let run = run(Settings { filters: vec![insert, third], ..settings() }, &stream, 1, succeed).await;
    assert_eq!(run.batches(), [[2, 3, 4]]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn order_row_with_parallelization_items_run_side_by_side_and_each_in_order() {
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
    assert!(run.times().iter().filter(|at| **at == 0).count() > 1, "several lanes start at once");
    assert!(run.batches().contains(&vec![40]) || run.batches().contains(&vec![39]), "others are not held up");
    assert_eq!(checkpoint(&stream), None, "the first record is unfinished, and all that follow it");
}

#[tokio::test(start_paused = true)]
async fn order_row_without_parallelization_a_shard_waits_for_its_batch_and_other_shards_do_not() {
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
async fn backoff_row_unlimited_retries_within_a_record_age_of_60_s_are_8_invocations() {
    let settings = Settings { maximum_record_age: Some(Duration::from_secs(60)), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!(run.calls.len(), 8, "as recorded");
    assert_eq!(run.failures[0].request_context.approximate_invoke_count, 8);
}

#[tokio::test(start_paused = true)]
async fn backoff_row_the_wait_is_an_option() {
    let backoff = Backoff { initial: Duration::from_secs(2), maximum: Duration::from_secs(5) };
    let settings = Settings { backoff, maximum_retry_attempts: Some(3), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!(run.times(), [0, 2_000, 6_000, 11_000]);
}

#[tokio::test(start_paused = true)]
async fn retry_count_row_a_batch_may_be_tried_only_once() {
    let settings = Settings { maximum_retry_attempts: Some(0), ..settings() };
    let run = run(settings, &stream(1), 600, |_, _| unhandled()).await;
    assert_eq!((run.calls.len(), run.failures.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn failure_record_row_it_names_the_invocation_that_failed_last() {
    let settings = Settings { maximum_retry_attempts: Some(2), ..settings() };
    let run = run(settings, &stream(1), 60, |_, _| unhandled()).await;
    assert_eq!(run.ids.len(), 3);
    assert_eq!(Some(&run.failures[0].request_context.request_id), run.ids.last());
    assert_ne!(run.ids[1], run.ids[2]);
}

#[tokio::test(start_paused = true)]
async fn failure_record_row_to_a_queue() {
    let queues = queues();
    queues.create("failures", []).unwrap();
    let send = SendFailures::new(Arc::new(queues.clone()), queues.arn("failures"));
    let stream = stream(3);
    let settings =
        Settings { maximum_retry_attempts: Some(1), report_batch_item_failures: true, ..settings() };
    let reply = |numbers: &[u32], _| if numbers.contains(&3) { failed_items(&[2]) } else { Ok(json!({})) };
    // Without its queue it is logged, and nothing else is held up.
    let lost = SendFailures::new(Arc::new(queues.clone()), queues.arn("none"));
    for record in run(settings, &stream, 60, reply).await.failures {
        lost.give_up(record.clone());
        send.give_up(record);
    }
    let messages = queues.messages("failures").unwrap();
    let bodies: Vec<_> = messages.iter().map(|message| &*message.body).collect();
    insta::assert_snapshot!(bodies.join("\n"), @r#"{"requestContext":{"requestId":"02020202-0202-4202-8202-020202020202","functionArn":"arn:processor","condition":"RetryAttemptsExhausted","approximateInvokeCount":2},"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":null},"version":"1.0","timestamp":"2026-03-01T00:00:00.250Z","DDBStreamBatchInfo":{"shardId":"shard","startSequenceNumber":"2","endSequenceNumber":"3","approximateArrivalOfFirstRecord":"2026-03-01T00:00:00.000Z","approximateArrivalOfLastRecord":"2026-03-01T00:00:00.000Z","batchSize":2,"streamArn":"arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-03-01T00:00:00.000"}}"#);
}

#[tokio::test(start_paused = true)]
async fn shards_row_a_child_is_read_only_once_its_parent_is_read_to_its_end_and_done() {
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
    assert_eq!(numbers, [1, 2, 6, 3, 4], "in the order of the family");
    assert!(batches.contains(&vec![5]), "others do not wait");
    let retried = run.calls.iter().filter(|(_, batch)| *batch == [6]).count();
    assert!(retried > 1, "the child has waited for the parent's last record");
    // Nothing comes again after a restart, and what the youngest gets is read at once.
    stream.put("grandchild", 7, START);
    assert_eq!(self::run(settings, &stream, 5, succeed).await.batches(), [[7]]);
}

#[tokio::test(start_paused = true)]
async fn shards_row_a_child_whose_parent_is_gone_is_read() {
    let stream = stream(0);
    stream.add_child("trimmed long ago", "child");
    stream.put("child", 1, START);
    assert_eq!(run(settings(), &stream, 5, succeed).await.batches(), [[1]]);
}

#[tokio::test(start_paused = true)]
async fn shards_row_a_split_while_the_mapping_starts_at_the_latest_record_loses_nothing() {
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
async fn order_row_records_come_twice_or_late_on_request() {
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
async fn polling_row_a_batch_leaves_at_6_mb() {
    let stream = stream(0);
    for number in 1..=3 {
        stream.put_item("shard", number, START, &"x".repeat(3 * 1_024 * 1_024 - 400));
    }
    let window = Settings { maximum_batching_window: Duration::from_secs(300), ..settings() };
    let run = run(window, &stream, 400, succeed).await;
    assert_eq!(run.calls, [(0, vec![1, 2]), (300_000, vec![3])]);
}

#[test]
fn filters_row_a_mapping_has_at_most_five() {
    let pattern = FilterPattern::parse(r#"{"eventName": ["INSERT"]}"#).unwrap();
    for (count, expected) in [(5, true), (6, false)] {
        let settings = Settings { filters: vec![pattern.clone(); count], ..settings() };
        assert_eq!(stage::mapping(settings).is_ok(), expected, "{count}");
    }
}

#[test]
fn filters_row_operators_that_aws_may_not_take_can_be_refused() {
    for (condition, expected) in [
        (r#"{"suffix": "x"}"#, false),
        (r#"{"equals-ignore-case": "x"}"#, false),
        (r#"{"anything-but": {"suffix": "x"}}"#, false),
        (r#"{"prefix": "x"}"#, true),
    ] {
        let pattern =
            FilterPattern::parse(&format!(r#"{{"$or": [{{"a": {{"b": [{condition}]}}}}]}}"#)).unwrap();
        for taken in [true, false] {
            let settings =
                Settings { filters: vec![pattern.clone()], unsettled_operators: taken, ..settings() };
            assert_eq!(stage::mapping(settings).is_ok(), taken || expected, "{condition}");
        }
    }
}

/// A table `table` with a stream and a time to live, on a clock that stands still.
fn database() -> (DynamoDb, Arc<Moment>) {
    let clock = Arc::new(Moment(Mutex::new(START)));
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

/// The records of the table's stream, as a function sees them.
fn events(db: &DynamoDb) -> Vec<Value> {
    let arn = db.streams().latest_stream_arn("table").unwrap();
    let shards = db.streams().shard_infos(&arn).unwrap().into_iter();
    let records = shards.flat_map(|shard| db.streams().read(&arn, &shard.id, None, 100).unwrap());
    records.map(|record| record.to_event_record()).collect()
}

#[tokio::test]
async fn record_row_a_function_sees_its_exact_shape() {
    let (db, _) = database();
    let item = json!({"id": {"S": "a"}, "n": {"N": "1"}});
    call(&db, "PutItem", &json!({"TableName": "table", "Item": item}));
    let [event] = &events(&db)[..] else { panic!("one write is one record") };
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
            // The key twice (2 + 1 each), and n with its number (1 + 2).
            "SizeBytes": 9,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": db.streams().latest_stream_arn("table"),
    });
    assert_eq!(*event, expected);
}

#[tokio::test]
async fn ttl_delete_row_a_filter_tells_it_from_other_removals() {
    let (db, clock) = database();
    let ends = (START.as_secs() + 60).to_string();
    for id in ["deleted", "expired"] {
        let item = json!({"id": {"S": id}, "ttl": {"N": ends}});
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
async fn starting_position_latest_skips_what_is_there_and_keeps_what_a_restart_would_miss() {
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
async fn starting_position_latest_of_an_empty_shard_is_its_start() {
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
async fn order_row_delivery_is_at_least_once_across_a_restart() {
    let stream = stream(2);
    let cut_off = run_slow(settings(), &stream, 1, Duration::from_secs(10), succeed).await;
    assert_eq!(cut_off.batches(), [[1, 2]]);
    assert_eq!(run(settings(), &stream, 1, succeed).await.batches(), [[1, 2]]);
    assert_eq!(run(settings(), &stream, 1, succeed).await.batches(), Vec::<Vec<u32>>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stuck_lane_bounds_what_is_read_and_loses_nothing() {
    let stream = stream(2_500);
    let settings = Settings { batch_size: 1_000, ..settings() };
    let run = run(settings, &stream, 10, |_, nth| if nth == 1 { unhandled() } else { Ok(json!({})) }).await;
    let sizes: Vec<_> = run.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1_000, 1_000, 500]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("2500"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_again() {
    let stream = stream(1);
    let trouble = async {
        stream.broken.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.broken.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.put("shard", 2, START);
        stream.broken.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        stream.broken.store(false, Ordering::Relaxed);
    };
    let ((), run) = tokio::join!(trouble, run(settings(), &stream, 5, succeed));
    assert_eq!(run.batches(), [[1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_mapping_does_nothing_until_it_is_shut_down() {
    let stream = stream(1);
    let disabled = run(Settings { enabled: false, ..settings() }, &stream, 5, succeed);
    let run = timeout(Duration::from_secs(6), disabled).await.unwrap();
    assert_eq!(run.calls, []);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a bug in the closure")]
async fn a_panic_in_what_invokes_is_passed_on() {
    run(settings(), &stream(1), 5, |_, _| panic!("a bug in the closure")).await;
}
