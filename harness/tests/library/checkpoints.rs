//! What handlers save, and how their requests go on from it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::executor::{Executor, ExecutorSettings};
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::lifecycle::Rules;
use streamer::progress::{ProgressError, ProgressReporter, StopReason};
use streamer::protocol::{ErrorCode, Frame};
use streamer::store::{AttemptOutcome, Ending, Runner, Status, StoreErrorKind};
use streamer::worker::Worker;
use streamer::worker::dispatch::WorkerEvent;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::flaky::Flaky;
use crate::scripted::{Bench, assert_in_order};
use crate::world::{batch, key, queue};

/// A job of so many minutes that saves how far it has come after each, and goes on from there; it never looks at the time.
async fn job(minutes: u32, context: Context) -> Result<Value, HandlerError> {
    let begin = context.checkpoint::<u32>()?.unwrap_or(0);
    for done in begin..minutes {
        sleep(Duration::from_mins(1)).await;
        context
            .progress
            .report(f64::from(done + 1) / f64::from(minutes) * 100.0, format!("Minute {}", done + 1))?;
        context.progress.checkpoint(done + 1).await?;
    }
    Ok(json!({"attempt": context.attempt, "continuations": context.continuations}))
}

#[tokio::test(start_paused = true)]
async fn a_job_of_three_hours_goes_on_from_invocation_to_invocation_within_one_attempt() {
    let bench = Bench::new(RetryPolicy::attempts(2), |context| job(180, context)).await;
    bench.queue_long("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt, request.continuations), (Status::Pending, 0, 1));
    assert_eq!((request.checkpoint, request.runner), (Some(json!(14)), Runner::Worker));
    assert_eq!(request.progress.message, "Minute 14", "as it was pushed last");
    bench.until_it_ends("r1").await;

    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!({"attempt": 1, "continuations": 12}))));
    assert_eq!((request.attempt, request.history), (1, vec![]), "no attempt is used up");
    assert_eq!(bench.started(), 13);
    assert!(began.elapsed() < Duration::from_mins(200), "{:?}", began.elapsed());
    let frames = bench.frames();
    assert_in_order(&frames);
    let mut percentages = Vec::new();
    for frame in &frames {
        if let Frame::Progress { percentage, .. } = frame {
            percentages.push(*percentage);
        }
    }
    assert_eq!(percentages.len(), 180, "each report is pushed once");
    assert!(percentages.is_sorted(), "it never goes back: {percentages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_goes_on_later_does_so_at_once() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(n) = context.checkpoint::<u32>()? {
            return Ok(json!([n, context.attempt, context.continuations]));
        }
        context.progress.checkpoint(7).await?;
        Err(HandlerError::go_on_later())
    })
    .await;
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.runner, request.history), (Status::Pending, Runner::Worker, vec![]));
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "should its record be lost");
    assert_eq!((bench.world.dispatched.keys(), bench.frames()), (vec![], vec![]));
    bench.world.process().await;
    assert_eq!(bench.world.dispatched.keys(), [key("r1")], "a fresh invocation of the worker");
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!([7, 1, 1]))));
}

#[tokio::test(start_paused = true)]
async fn to_go_on_later_without_a_checkpoint_is_a_failure() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| Err(HandlerError::go_on_later())).await;
    bench.queue("r1").await;
    bench.until_it_ends("r1").await;
    assert_eq!(bench.error().code, ErrorCode::ProcessingFailed);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Failed)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_as_often_as_it_may_and_times_out_then() {
    let bench = Bench::new(RetryPolicy::attempts(5), async |context: Context| {
        context.progress.checkpoint(1).await?;
        Err(HandlerError::go_on_later())
    })
    .await;
    bench.queue("r1").await;
    let executor = bench.world.executor_on(queue(&bench.world.db), Handle::current());
    let rules = Rules { max_continuations: 3 };
    let settings = ExecutorSettings { rules, ..ExecutorSettings::default() };
    let worker = Worker::new(Executor { settings, ..executor });
    for _ in 0..4 {
        let deadline = bench.world.now() + Duration::from_mins(15);
        worker.run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap();
    }
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.continuations, bench.started()), (Status::Failed, 3, 4));
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut)]);
    assert_eq!(bench.world.letters.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_after_a_failure_goes_on_from_what_the_last_has_saved() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |context: Context| {
        let saved = context.checkpoint::<u32>()?;
        if context.attempt == 3 {
            return Ok(json!(saved));
        }
        context.progress.report(f64::from(context.attempt) * 30.0, "Working")?;
        context.progress.checkpoint(context.attempt * 10 + saved.unwrap_or(0)).await?;
        Err(HandlerError::retryable("BUSY", "busy"))
    })
    .await;
    bench.queue("r1").await;
    bench.until_it_ends("r1").await;
    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!(30))));
    assert_eq!(request.progress.percentage, 60.0, "and from how far it had come");
    assert_in_order(&bench.frames());
}

#[tokio::test(start_paused = true)]
async fn a_last_checkpoint_may_be_saved_once_the_time_is_up() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(saved) = context.checkpoint::<String>()? {
            return Ok(json!(saved));
        }
        assert_eq!(context.progress.stopped().await, StopReason::TimeIsUp);
        sleep(Duration::from_secs(4)).await;
        context.progress.checkpoint("at the last moment").await?;
        // It need not say that it goes on: it is told to stop, and has something to go on from.
        std::future::pending().await
    })
    .await;
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(1)).await;
    assert_eq!((bench.status("r1").await, began.elapsed().as_secs()), (Status::Pending, 55));
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!("at the last moment"))));
}

/// Without progress of its own, a run that is out of time costs an attempt: else it could go on for ever.
#[tokio::test(start_paused = true)]
async fn a_run_that_saves_nothing_anew_times_out() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |context: Context| {
        if context.continuations == 0 && context.attempt == 1 {
            context.progress.checkpoint(1).await?;
            return Err(HandlerError::go_on_later());
        }
        std::future::pending().await
    })
    .await;
    bench.queue("r1").await;
    bench.until_it_ends("r1").await;
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut), (2, AttemptOutcome::TimedOut)]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_the_largest_size_is_saved_and_a_larger_one_refused() {
    let max = ProgressReporter::MAX_CHECKPOINT_BYTES;
    let bench = Bench::new(RetryPolicy::never(), move |context: Context| async move {
        if let Some(saved) = context.checkpoint::<String>()? {
            return Ok(json!(saved.len()));
        }
        context.progress.checkpoint("x".repeat(max - 2)).await?;
        let refused = context.progress.checkpoint("y".repeat(max - 1)).await;
        assert!(matches!(refused, Err(ProgressError::Checkpoint { .. })), "{refused:?}");
        Err(HandlerError::go_on_later())
    })
    .await;
    bench.queue("r1").await;
    bench.until_it_ends("r1").await;
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!(max - 2))));
}

fn flaky(bench: &Bench, fails: u32, kind: StoreErrorKind) -> Flaky {
    let queue = queue(&bench.world.db);
    Flaky { queue, progress: Arc::new(fails.into()), ends: Arc::default(), kind }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_tried_again_while_the_store_fails_for_a_moment() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        context.progress.checkpoint(1).await?;
        Ok(Value::Null)
    })
    .await;
    bench.queue("r1").await;
    let processor = bench.world.processor_with(flaky(&bench, 7, StoreErrorKind::Throttled));
    let deadline = bench.world.now() + Duration::from_mins(15);
    processor.process(batch(bench.world.pending()), deadline).await;
    assert_eq!(bench.status("r1").await, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_handler_hears_of_a_checkpoint_that_is_not_saved() {
    for (kind, fails, after) in
        [(StoreErrorKind::TooLarge, 1, 0), (StoreErrorKind::Unavailable, u32::MAX, 59)]
    {
        let heard = Arc::new(Mutex::new(None));
        let hears = Arc::clone(&heard);
        let bench = Bench::new(RetryPolicy::never(), move |context: Context| {
            let hears = Arc::clone(&hears);
            async move {
                let began = Instant::now();
                let refused = context.progress.checkpoint(1).await;
                *hears.lock().unwrap() = Some((refused.unwrap_err(), began.elapsed().as_secs()));
                Ok(Value::Null)
            }
        })
        .await;
        bench.queue("r1").await;
        let processor = bench.world.processor_with(flaky(&bench, fails, kind));
        let deadline = bench.world.now() + Duration::from_mins(15);
        processor.process(batch(bench.world.pending()), deadline).await;
        let (error, waited) = heard.lock().unwrap().clone().unwrap();
        assert!(matches!(error, ProgressError::Checkpoint { .. }), "{error:?}");
        assert_eq!(waited, after, "{kind:?}");
        assert_eq!(bench.status("r1").await, Status::Completed, "its work goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_an_attempt_that_has_lost_its_lease_changes_nothing() {
    for state in [json!(1), json!("x".repeat(20_000))] {
        let heard = Arc::new(Mutex::new(None));
        let hears = Arc::clone(&heard);
        let bench = Bench::new(RetryPolicy::never(), move |context: Context| {
            let (hears, state) = (Arc::clone(&hears), state.clone());
            async move {
                sleep(Duration::from_secs(5)).await;
                let refused = context.progress.checkpoint(state.clone()).await;
                let again = context.progress.checkpoint(state).await;
                *hears.lock().unwrap() = Some((refused, again));
                Ok(Value::Null)
            }
        })
        .await;
        bench.queue("r1").await;
        let takes_over = async {
            sleep(Duration::from_secs(2)).await;
            bench.world.take_over("r1").await;
            bench.world.item("r1").await
        };
        let (_, item) = tokio::join!(bench.world.process(), takes_over);
        let lost = Err(ProgressError::Stopped(StopReason::LeaseLost));
        assert_eq!(heard.lock().unwrap().clone(), Some((lost.clone(), lost)));
        assert_eq!((bench.world.item("r1").await, bench.frames()), (item, vec![]));
        assert_eq!(bench.world.request("r1").await.checkpoint, None);
    }
}

/// Saves without end, as fast as it goes.
#[tokio::test(start_paused = true)]
async fn checkpoints_one_after_another_keep_the_lease_and_the_last_one_counts() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(n) = context.checkpoint::<u32>()? {
            return Ok(json!(n));
        }
        for n in 0..300 {
            context.progress.checkpoint(n).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Err(HandlerError::go_on_later())
    })
    .await;
    bench.queue("r1").await;
    let ledger = bench.world.db.ledger();
    let processor = bench.world.processor();
    processor.process(batch(bench.world.pending()), bench.world.now() + Duration::from_mins(15)).await;
    let writes = ledger.take().to_string();
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!(299))));
    assert_snapshot!(writes, @r"
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    300 x UpdateItem streamer-RequestsTable: 1 WCU
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    ");
}
