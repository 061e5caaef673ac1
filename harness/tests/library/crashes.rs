//! Attempts whose process crashes or freezes, and the later attempts of their requests.

use std::time::Duration;

use serde_json::{Value, json};
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::protocol::{ErrorCode, Frame};
use streamer::store::{AttemptOutcome, Ending, Runner, Status};
use tokio::time::{sleep, timeout};

use crate::scripted::{Bench, Count, CountsDrop, assert_in_order};
use crate::world::key;

/// Handler body: works for `seconds` seconds. After each second, reports progress and saves the number of
/// finished seconds as a checkpoint. Returns the attempt number and the checkpoint from which the attempt began.
async fn works(context: Context, seconds: u32) -> Result<Value, HandlerError> {
    let begin = context.checkpoint::<u32>()?;
    for n in begin.unwrap_or(0)..seconds {
        sleep(Duration::from_secs(1)).await;
        context.progress.report(f64::from(n), format!("Attempt {}", context.attempt))?;
        context.progress.checkpoint(n + 1).await?;
    }
    Ok(json!({"attempt": context.attempt, "begin": begin}))
}

#[tokio::test(start_paused = true)]
async fn request_of_a_crashed_process_is_rerun_by_the_worker_from_its_checkpoint() {
    let bench = Bench::new(RetryPolicy::attempts(2), |context| works(context, 20)).await;
    bench.queue("r1").await;
    // The timeout drops the processor's future in the middle of the attempt, which simulates a crash.
    assert!(timeout(Duration::from_millis(5_500), bench.world.process()).await.is_err());
    assert_eq!(bench.status("r1").await, Status::Processing);
    let pushed = bench.frames().len();
    bench.reclaim("r1").await;
    assert_eq!((bench.frames().len(), bench.runner("r1").await), (pushed, Runner::Worker));

    bench.world.process().await;
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!({"attempt": 2, "begin": 5}))));
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Crashed)]);
    assert_in_order(&bench.frames());
}

#[tokio::test(start_paused = true)]
async fn crash_of_the_process_uses_up_an_attempt() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| {
        sleep(Duration::from_secs(2)).await;
        Err(HandlerError::retryable("BUSY", "busy"))
    })
    .await;
    bench.queue("r1").await;
    assert!(timeout(Duration::from_secs(1), bench.world.process()).await.is_err());
    bench.reclaim("r1").await;
    bench.world.process().await;
    assert_eq!(bench.status("r1").await, Status::Failed);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Crashed), (2, AttemptOutcome::Failed)]);
    assert_eq!(bench.error().code, ErrorCode::Custom("BUSY".into()));
}

/// The process freezes in the middle of an attempt. It thaws after a second attempt has completed the request.
#[tokio::test(start_paused = true)]
async fn attempt_that_thaws_after_the_request_was_completed_changes_and_sends_nothing() {
    let dropped = Count::default();
    let counts = dropped.clone();
    let bench = Bench::new(RetryPolicy::attempts(2), move |context: Context| {
        let guard = CountsDrop(counts.clone());
        async move {
            let result = works(context, 20).await;
            drop(guard);
            result
        }
    })
    .await;
    bench.queue("r1").await;
    let frozen = bench.world.process();
    tokio::pin!(frozen);
    assert!(timeout(Duration::from_millis(3_500), &mut frozen).await.is_err());
    // The handler is a separate task. It continues until it waits for the frozen executor to store a checkpoint.
    bench.reclaim("r1").await;
    bench.world.process().await;
    let (item, frames) = (bench.world.item("r1").await, bench.frames());
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");

    assert_eq!(frozen.await.batch_item_failures, []);
    assert_eq!((bench.world.item("r1").await, bench.frames()), (item, frames));
    assert_eq!(dropped.get(), 2, "no handler is left running");
}

/// The process freezes in the middle of the first attempt. It thaws while the second attempt is running.
#[tokio::test(start_paused = true)]
async fn attempt_that_thaws_while_a_newer_attempt_runs_sends_nothing() {
    let bench = Bench::new(RetryPolicy::attempts(2), |context| works(context, 20)).await;
    bench.queue("r1").await;
    let frozen = bench.world.process();
    tokio::pin!(frozen);
    assert!(timeout(Duration::from_millis(3_500), &mut frozen).await.is_err());
    bench.reclaim("r1").await;
    let thaws = async {
        sleep(Duration::from_secs(8)).await;
        frozen.await
    };
    tokio::join!(bench.world.process(), thaws);
    let frames = bench.frames();
    assert_in_order(&frames);
    let from = frames.iter().position(|frame| is_of_attempt(frame, 2)).unwrap();
    assert!(!frames[from..].iter().any(|frame| is_of_attempt(frame, 1)), "{frames:?}");
    let ending = bench.world.request("r1").await.ending;
    assert!(matches!(ending, Some(Ending::Completed(result)) if result["attempt"] == 2));
}

fn is_of_attempt(frame: &Frame, attempt: u32) -> bool {
    matches!(frame, Frame::Progress { message, .. } if *message == format!("Attempt {attempt}"))
}

#[tokio::test(start_paused = true)]
async fn handler_panic_fails_only_the_attempt_of_its_own_request() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |context: Context| {
        sleep(Duration::from_secs(1)).await;
        assert!(
            context.request_id.as_str() != "r3" || context.attempt > 1,
            "deliberate panic of the handler of r3"
        );
        sleep(Duration::from_secs(9)).await;
        Ok(json!(context.attempt))
    })
    .await;
    for n in 0..6 {
        bench.queue(&format!("r{n}")).await;
    }
    bench.world.process().await;
    for n in 0..6 {
        let request = bench.world.request(&format!("r{n}")).await;
        // The processor retries r3 in the same invocation, while the handlers of the other requests run.
        assert_eq!(request.ending, Some(Ending::Completed(json!(if n == 3 { 2 } else { 1 }))));
    }
    assert_eq!(bench.history("r3").await, [(1, AttemptOutcome::Panicked)]);
}
