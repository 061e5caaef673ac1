//! The event source mapping over a stream in memory and a function that is a closure, in paused time. Each
//! test of a row of AWS-FACTS, section 2, is named after it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

#[path = "event_source/stage.rs"]
mod stage;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use streamer_harness::event_source::{FilterPattern, LogFailures, OnFailure, Settings, StartingPosition};
use streamer_harness::lambda::InvokeError;
use tokio::time::{sleep, timeout};

use stage::{START, checkpoint, failed_items, run, run_slow, settings, stream, succeed, unhandled};

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
    assert_eq!(run.times(), [0, 1_000, 3_000, 7_000, 7_000]);
    assert_eq!(checkpoint(&stream).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn retry_count_row_throttles_do_not_count() {
    let stream = stream(1);
    let settings = Settings { maximum_retry_attempts: Some(1), ..settings() };
    let run = run(settings, &stream, 60, |_, nth| match nth {
        1..=3 => Err(InvokeError::Throttled),
        4 => Err(InvokeError::NotFound("processor".to_owned())),
        _ => unhandled(),
    });
    let run = run.await;
    assert_eq!(run.times(), [0, 1_000, 3_000, 7_000, 15_000, 16_000]);
    assert_eq!(run.failures[0].request_context.approximate_invoke_count, 2);
}

#[tokio::test(start_paused = true)]
async fn defaults_row_retries_are_without_end() {
    let run = run(settings(), &stream(1), 3_600, |_, _| unhandled()).await;
    assert_eq!(&run.times()[..8], [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 123_000]);
    assert_eq!(run.calls.len(), 65, "one a minute at last");
    assert_eq!(run.failures, []);
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
            "requestId": "00000000-0000-4000-8000-000000000000",
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
            "streamArn": "arn:stream"
        }
    });
    assert_eq!(serde_json::to_value(&run.failures).unwrap(), json!([expected]));
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
