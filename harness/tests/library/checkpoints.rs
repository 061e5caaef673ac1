//! Handlers that save checkpoints, and requests that continue from a checkpoint in a new invocation.

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

/// Handler body: works for `minutes` minutes, and saves a checkpoint after each minute. A continuation starts
/// from the last checkpoint. The handler never checks how much time its invocation has left.
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
async fn three_hour_job_continues_across_invocations_within_one_attempt() {
    let bench = Bench::new(RetryPolicy::attempts(2), |context| job(180, context)).await;
    bench.queue_long("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt, request.continuations), (Status::Pending, 0, 1));
    assert_eq!((request.checkpoint, request.runner), (Some(json!(14)), Runner::Worker));
    assert_eq!(request.progress.message, "Minute 14", "the stored progress is the last pushed progress");
    bench.run_until_terminal("r1").await;

    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!({"attempt": 1, "continuations": 12}))));
    assert_eq!((request.attempt, request.history), (1, vec![]), "all continuations count as one attempt");
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
    assert_eq!(percentages.len(), 180, "each report is pushed exactly once");
    assert!(percentages.is_sorted(), "progress percentage never decreases: {percentages:?}");
}

#[tokio::test(start_paused = true)]
async fn yielded_request_continues_immediately_in_a_new_worker_invocation() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(n) = context.checkpoint::<u32>()? {
            return Ok(json!([n, context.attempt, context.continuations]));
        }
        context.progress.checkpoint(7).await?;
        Err(HandlerError::continue_later())
    })
    .await;
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.runner, request.history), (Status::Pending, Runner::Worker, vec![]));
    let item = bench.world.item("r1").await;
    assert!(item.contains_key("timer_at"), "the request has a timer, in case its stream record is lost");
    assert_eq!((bench.world.dispatched.keys(), bench.frames()), (vec![], vec![]));
    bench.world.process().await;
    assert_eq!(bench.world.dispatched.keys(), [key("r1")], "the continuation is dispatched to the worker");
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!([7, 1, 1]))));
}

#[tokio::test(start_paused = true)]
async fn yield_without_a_checkpoint_is_a_failed_attempt() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| Err(HandlerError::continue_later())).await;
    bench.queue("r1").await;
    bench.run_until_terminal("r1").await;
    assert_eq!(bench.error().code, ErrorCode::ProcessingFailed);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Failed)]);
}

#[tokio::test(start_paused = true)]
async fn request_that_yields_more_often_than_allowed_fails_with_timeout() {
    let bench = Bench::new(RetryPolicy::attempts(5), async |context: Context| {
        context.progress.checkpoint(1).await?;
        Err(HandlerError::continue_later())
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
async fn retried_attempt_continues_from_the_checkpoint_of_the_failed_attempt() {
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
    bench.run_until_terminal("r1").await;
    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!(30))));
    assert_eq!(request.progress.percentage, 60.0, "the progress of the last failed attempt is kept");
    assert_in_order(&bench.frames());
}

#[tokio::test(start_paused = true)]
async fn request_continues_from_a_checkpoint_saved_after_the_time_limit_signal() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(saved) = context.checkpoint::<String>()? {
            return Ok(json!(saved));
        }
        assert_eq!(context.progress.stopped().await, StopReason::TimeLimitReached);
        sleep(Duration::from_secs(4)).await;
        context.progress.checkpoint("at the last moment").await?;
        // The handler never yields. The executor stops the handler and yields the request, because the attempt has
        // saved a new checkpoint.
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

/// A continuation that reaches its time limit without a new checkpoint uses up an attempt. Otherwise the
/// request could continue forever without any progress.
#[tokio::test(start_paused = true)]
async fn continuation_that_saves_no_new_checkpoint_times_out() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |context: Context| {
        if context.continuations == 0 && context.attempt == 1 {
            context.progress.checkpoint(1).await?;
            return Err(HandlerError::continue_later());
        }
        std::future::pending().await
    })
    .await;
    bench.queue("r1").await;
    bench.run_until_terminal("r1").await;
    assert_eq!(bench.error().code, ErrorCode::Timeout);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::TimedOut), (2, AttemptOutcome::TimedOut)]);
}

#[tokio::test(start_paused = true)]
async fn checkpoint_of_the_maximum_size_is_saved_and_a_larger_one_is_refused() {
    let max = ProgressReporter::MAX_CHECKPOINT_BYTES;
    let bench = Bench::new(RetryPolicy::never(), move |context: Context| async move {
        if let Some(saved) = context.checkpoint::<String>()? {
            return Ok(json!(saved.len()));
        }
        context.progress.checkpoint("x".repeat(max - 2)).await?;
        let refused = context.progress.checkpoint("y".repeat(max - 1)).await;
        assert!(matches!(refused, Err(ProgressError::Checkpoint { .. })), "{refused:?}");
        Err(HandlerError::continue_later())
    })
    .await;
    bench.queue("r1").await;
    bench.run_until_terminal("r1").await;
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!(max - 2))));
}

/// Returns a request queue on the bench's tables whose next `fails` checkpoint writes fail with an error of the
/// kind `kind`.
fn flaky(bench: &Bench, fails: u32, kind: StoreErrorKind) -> Flaky {
    let queue = queue(&bench.world.db);
    Flaky { queue, progress: Arc::new(fails.into()), ends: Arc::default(), kind }
}

#[tokio::test(start_paused = true)]
async fn checkpoint_write_is_retried_while_the_store_is_throttled() {
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
async fn handler_receives_an_error_if_its_checkpoint_cannot_be_saved() {
    for (kind, fails, after) in
        [(StoreErrorKind::TooLarge, 1, 0), (StoreErrorKind::Unavailable, u32::MAX, 59)]
    {
        let observed = Arc::new(Mutex::new(None));
        let observer = Arc::clone(&observed);
        let bench = Bench::new(RetryPolicy::never(), move |context: Context| {
            let observer = Arc::clone(&observer);
            async move {
                let began = Instant::now();
                let refused = context.progress.checkpoint(1).await;
                *observer.lock().unwrap() = Some((refused.unwrap_err(), began.elapsed().as_secs()));
                Ok(Value::Null)
            }
        })
        .await;
        bench.queue("r1").await;
        let processor = bench.world.processor_with(flaky(&bench, fails, kind));
        let deadline = bench.world.now() + Duration::from_mins(15);
        processor.process(batch(bench.world.pending()), deadline).await;
        let (error, waited) = observed.lock().unwrap().clone().unwrap();
        assert!(matches!(error, ProgressError::Checkpoint { .. }), "{error:?}");
        assert_eq!(waited, after, "{kind:?}");
        assert_eq!(
            bench.status("r1").await,
            Status::Completed,
            "the request completes although its checkpoint was not saved"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoint_after_a_lost_lease_fails_and_changes_nothing() {
    for state in [json!(1), json!("x".repeat(20_000))] {
        let observed = Arc::new(Mutex::new(None));
        let observer = Arc::clone(&observed);
        let bench = Bench::new(RetryPolicy::never(), move |context: Context| {
            let (observer, state) = (Arc::clone(&observer), state.clone());
            async move {
                sleep(Duration::from_secs(5)).await;
                let refused = context.progress.checkpoint(state.clone()).await;
                let again = context.progress.checkpoint(state).await;
                *observer.lock().unwrap() = Some((refused, again));
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
        assert_eq!(observed.lock().unwrap().clone(), Some((lost.clone(), lost)));
        assert_eq!((bench.world.item("r1").await, bench.frames()), (item, vec![]));
        assert_eq!(bench.world.request("r1").await.checkpoint, None);
    }
}

/// The handler saves one checkpoint per second for five minutes, and then yields.
#[tokio::test(start_paused = true)]
async fn frequent_checkpoints_renew_the_lease_and_the_request_continues_from_the_last_one() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        if let Some(n) = context.checkpoint::<u32>()? {
            return Ok(json!(n));
        }
        for n in 0..300 {
            context.progress.checkpoint(n).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Err(HandlerError::continue_later())
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
