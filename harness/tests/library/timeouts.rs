//! Attempts that take longer than they may.

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
async fn what_does_not_end_in_the_processors_invocation_is_tried_again_by_the_worker() {
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
async fn a_timeout_is_final_if_its_policy_says_so() {
    let mut policy = RetryPolicy::attempts(3);
    policy.retries_timeouts = false;
    let bench = Bench::new(policy, hangs).await;
    bench.queue("r1").await;
    bench.world.process_for(Duration::from_mins(1)).await;
    // It shared that minute with others: it gets an invocation of its own, whatever its policy says.
    let summary = bench.summary("r1").await;
    assert_eq!((summary.status, summary.runner), (Status::Retrying, Runner::Worker));
    advance(Duration::from_secs(2)).await;
    let deadline = bench.world.now() + Duration::from_mins(1);
    bench.world.worker().run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap();
    assert_eq!((bench.status("r1").await, bench.error().code), (Status::Failed, ErrorCode::Timeout));
    assert_eq!(bench.world.request("r1").await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_how_much_time_it_has_and_hears_when_it_is_up() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let bench = Bench::new(RetryPolicy::never(), move |context| {
        let hears = Arc::clone(&hears);
        async move {
            let began = Instant::now();
            let at_first = context.progress.remaining().as_secs();
            sleep(Duration::from_secs(40)).await;
            let then = context.progress.remaining().as_secs();
            let reason = context.progress.stopped().await;
            let refused = context.progress.report(1.0, "x").is_err();
            hears.lock().unwrap().push((at_first, then, began.elapsed().as_secs(), reason, refused));
            Ok(json!("just in time"))
        }
    })
    .await;
    bench.queue("r1").await;
    bench.world.process_for(Duration::from_secs(100)).await;
    assert_eq!(*heard.lock().unwrap(), [(90, 50, 90, StopReason::TimeIsUp, true)]);
    // What it has done in the time that it had left counts.
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!("just in time"))));
}

#[tokio::test(start_paused = true)]
async fn an_error_after_the_time_is_up_is_a_timeout() {
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

/// However the settings are, what has become of a request is written before its invocation ends.
#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_listen_is_dropped_in_time_to_write_what_became_of_it() {
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
        assert_eq!(began.elapsed().as_secs(), dropped_after, "{margin} {grace}");
        assert_eq!(dropped.get(), 1, "{margin} {grace}: nothing of it is left running");
        assert_eq!(bench.status("r1").await, Status::Retrying, "{margin} {grace}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_longer_than_its_handler_may_is_tried_again_and_goes_on_from_what_it_saved() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |context: Context| {
        let saved = context.checkpoint::<u32>()?.unwrap_or(0);
        context.progress.checkpoint(saved + 1).await?;
        let remaining = context.progress.remaining().as_secs();
        assert!((19..=20).contains(&remaining), "{remaining}");
        std::future::pending().await
    })
    .await;
    bench.queue_limited("r1", 20).await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(began.elapsed().as_secs(), 25, "told after 20 s, and given five");
    let request = bench.world.request("r1").await;
    // It is its own time that was up: it does not go on in a fresh invocation for nothing.
    assert_eq!((request.status, request.continuations), (Status::Retrying, 0));
    assert_eq!((request.runner, request.checkpoint), (Runner::Processor, Some(json!(1))));
    bench.until_it_ends("r1").await;
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut), (2, AttemptOutcome::TimedOut)]);
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.error().message, "The request took longer than 20 s");
    assert_eq!(bench.world.request("r1").await.attempt, 2);
}

/// Whichever time is up first is what the handler hears of.
#[tokio::test(start_paused = true)]
async fn a_handlers_own_time_ends_no_later_than_its_invocations() {
    let bench = Bench::new(RetryPolicy::attempts(2), hangs).await;
    bench.queue_limited("r1", 52).await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(1)).await;
    assert_eq!(began.elapsed().as_secs(), 55, "told after 50 s, and given five");
    assert_eq!((bench.status("r1").await, bench.runner("r1").await), (Status::Retrying, Runner::Worker));
}
