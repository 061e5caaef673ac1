//! Tests of attempts that exceed the handler's timeout or the invocation's deadline.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::executor::{Executor, ExecutorSettings};
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::processor::{Processor, ProcessorSettings};
use streamer::progress::StopReason;
use streamer::protocol::ErrorCode;
use streamer::store::{AttemptOutcome, Ending, Runner, Status};
use streamer::worker::dispatch::WorkerEvent;
use tokio::runtime::Handle;
use tokio::time::{Instant, advance, sleep};

use crate::scripted::{Bench, Count, CountsDrop};
use crate::world::{batch, key, queue};

async fn hangs(_: Context) -> Result<Value, HandlerError> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn attempt_that_outlasts_the_processors_invocation_is_retried_by_the_worker() {
    let bench = Bench::new(RetryPolicy::attempts(2), hangs).await;
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(5)).await;
    assert_eq!(began.elapsed().as_secs(), 295);
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.runner, request.attempt), (Status::Retrying, Runner::Worker, 1));
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut)]);
    assert_eq!(bench.frames(), []);

    bench.world.retry("r1").await;
    bench.world.process().await;
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    assert_eq!(bench.status("r1").await, Status::Failed);
    assert_eq!((bench.error().code, bench.started()), (ErrorCode::Timeout, 2));
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut), (2, AttemptOutcome::TimedOut)]);
    assert_eq!(bench.world.letters.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn timeout_in_the_worker_fails_the_request_if_the_policy_forbids_timeout_retries() {
    let mut policy = RetryPolicy::attempts(3);
    policy.retries_timeouts = false;
    let bench = Bench::new(policy, hangs).await;
    bench.queue("r1").await;
    bench.world.process_for(Duration::from_mins(1)).await;
    // The processor's invocation is shared with other requests. After a timeout in the processor, the worker
    // therefore runs the request in a separate invocation, even if the policy forbids retries of timeouts.
    let summary = bench.summary("r1").await;
    assert_eq!((summary.status, summary.runner), (Status::Retrying, Runner::Worker));
    advance(Duration::from_secs(2)).await;
    let deadline = bench.world.now() + Duration::from_mins(1);
    bench.world.worker().run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap();
    assert_eq!((bench.status("r1").await, bench.error().code), (Status::Failed, ErrorCode::Timeout));
    assert_eq!(bench.world.request("r1").await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn handler_can_read_its_remaining_time_and_receives_a_stop_signal_at_its_time_limit() {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&recorded);
    let bench = Bench::new(RetryPolicy::never(), move |context| {
        let recorder = Arc::clone(&recorder);
        async move {
            let began = Instant::now();
            let remaining_at_start = context.progress.remaining().as_secs();
            sleep(Duration::from_secs(40)).await;
            let remaining_after_40_s = context.progress.remaining().as_secs();
            let reason = context.progress.stopped().await;
            let report_fails = context.progress.report(1.0, "x").is_err();
            let stopped_after = began.elapsed().as_secs();
            let seen = (remaining_at_start, remaining_after_40_s, stopped_after, reason, report_fails);
            recorder.lock().unwrap().push(seen);
            Ok(json!("just in time"))
        }
    })
    .await;
    bench.queue("r1").await;
    bench.world.process_for(Duration::from_secs(100)).await;
    assert_eq!(*recorded.lock().unwrap(), [(90, 50, 90, StopReason::TimeLimitReached, true)]);
    // The request completes, because the handler returned its result within the grace period after the stop signal.
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!("just in time"))));
}

#[tokio::test(start_paused = true)]
async fn handler_error_returned_after_the_time_limit_counts_as_a_timeout() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        context.progress.stopped().await;
        context.progress.report(1.0, "x")?;
        Ok(Value::Null)
    })
    .await;
    bench.queue("r1").await;
    bench.world.process_for(Duration::from_secs(100)).await;
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut)]);
}

/// The retry is written before the invocation ends for every combination of deadline margin and stop grace.
#[tokio::test(start_paused = true)]
async fn handler_that_ignores_the_stop_signal_is_dropped_in_time_to_write_the_retry() {
    for (margin, grace, dropped_after) in [(10, 5, 55), (10, 60, 56), (5, 5, 56), (1, 5, 59), (30, 1, 31)] {
        let dropped = Count::default();
        let counts = dropped.clone();
        let bench = Bench::new(RetryPolicy::attempts(2), move |_| {
            let guard = CountsDrop(counts.clone());
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .await;
        bench.queue("r1").await;
        let executor = bench.world.executor_on(queue(&bench.world.db), Handle::current());
        let settings = ExecutorSettings {
            deadline_margin: Duration::from_secs(margin),
            stop_grace: Duration::from_secs(grace),
            ..ExecutorSettings::default()
        };
        let inline =
            ProcessorSettings { inline_limit: Duration::from_secs(1), ..ProcessorSettings::default() };
        let executor = Executor { settings, ..executor };
        let processor = Processor::new(executor, bench.world.dispatched.clone(), inline);
        let began = Instant::now();
        let deadline = bench.world.now() + Duration::from_mins(1);
        processor.process(batch(bench.world.pending()), deadline).await;
        let settings = format!("deadline margin {margin} s, stop grace {grace} s");
        assert_eq!(
            began.elapsed().as_secs(),
            dropped_after,
            "the handler is dropped after {dropped_after} s with {settings}"
        );
        assert_eq!(dropped.get(), 1, "the handler's future is dropped with {settings}");
        assert_eq!(bench.status("r1").await, Status::Retrying, "the request is retried with {settings}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_that_exceeds_its_handlers_timeout_is_retried_with_its_checkpoint_kept() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |context: Context| {
        let saved = context.checkpoint::<u32>()?.unwrap_or(0);
        context.progress.checkpoint(saved + 1).await?;
        let remaining = context.progress.remaining().as_secs();
        assert!((19..=20).contains(&remaining), "about 20 s remain, not {remaining} s");
        std::future::pending().await
    })
    .await;
    bench.queue_limited("r1", 20).await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(
        began.elapsed().as_secs(),
        25,
        "the handler receives the stop signal after 20 s and is dropped 5 s later"
    );
    let request = bench.world.request("r1").await;
    // The attempt ended at the handler's timeout, before the invocation's deadline. The next run is therefore a new
    // attempt and not a continuation, which would use no attempt.
    assert_eq!((request.status, request.continuations), (Status::Retrying, 0));
    assert_eq!((request.runner, request.checkpoint), (Runner::Processor, Some(json!(1))));
    bench.run_until_terminal("r1").await;
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut), (2, AttemptOutcome::TimedOut)]);
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.error().message, "The request took longer than 20 s");
    assert_eq!(bench.world.request("r1").await.attempt, 2);
}

/// The earlier of the handler's timeout and the invocation's deadline stops the attempt.
#[tokio::test(start_paused = true)]
async fn invocation_deadline_stops_an_attempt_before_a_later_handler_timeout() {
    let bench = Bench::new(RetryPolicy::attempts(2), hangs).await;
    bench.queue_limited("r1", 52).await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(1)).await;
    assert_eq!(
        began.elapsed().as_secs(),
        55,
        "the handler receives the stop signal after 50 s and is dropped 5 s later"
    );
    assert_eq!((bench.status("r1").await, bench.runner("r1").await), (Status::Retrying, Runner::Worker));
}
