//! Cancel requests that arrive while an attempt runs, or while the request waits for a retry.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::progress::StopReason;
use streamer::protocol::ErrorCode;
use streamer::store::{
    Cancelled, NewStatus, Status, StoreErrorKind, SubmitRequests as _, SweepRequests as _,
};
use tokio::time::{Instant, sleep};

use crate::scripted::{Bench, Count, CountsDrop, assert_in_order};
use crate::world::{key, queue};

async fn cancel(bench: &Bench, after: Duration) -> Cancelled {
    sleep(after).await;
    queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap()
}

/// Asserts that the request is cancelled and that its terminal frame was sent once. Also asserts that later
/// stream records and dispatches of the request change nothing.
async fn assert_cancelled(bench: &Bench) {
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.lease), (Status::Cancelled, None));
    assert_eq!(bench.error().code, ErrorCode::Cancelled);
    assert_in_order(&bench.frames());
    let (item, frames, started) = (bench.world.item("r1").await, bench.frames(), bench.started());
    bench.world.process().await;
    bench.world.work(key("r1")).await;
    assert_eq!((bench.world.item("r1").await, bench.frames(), bench.started()), (item, frames, started));
    assert_eq!(bench.world.letters.sent(), []);
}

/// Handler body: reports progress each second until a report fails because of the cancel request. Then the
/// handler cleans up for the duration `takes` and returns `returns`. The attempt ignores this result.
async fn cleans_up(
    context: Context,
    takes: Duration,
    cleaned: Count,
    returns: Result<Value, HandlerError>,
) -> Result<Value, HandlerError> {
    let mut n = 0;
    while context.progress.report(f64::from(n), format!("Second {n}")).is_ok() {
        sleep(Duration::from_secs(1)).await;
        n += 1;
    }
    assert_eq!(context.progress.stop_reason(), Some(StopReason::Cancelled));
    sleep(takes).await;
    cleaned.add();
    returns
}

#[tokio::test(start_paused = true)]
async fn result_that_a_handler_returns_after_its_cancel_cleanup_is_ignored() {
    let errors: [Option<fn() -> HandlerError>; 4] = [
        None,
        Some(|| HandlerError::failure("A", "a")),
        Some(|| HandlerError::retryable("A", "a")),
        Some(HandlerError::continue_later),
    ];
    for error in errors {
        let cleaned = Count::default();
        let counts = cleaned.clone();
        let bench = Bench::new(RetryPolicy::attempts(3), move |context| {
            cleans_up(
                context,
                Duration::from_secs(3),
                counts.clone(),
                match error {
                    None => Ok(json!("done")),
                    Some(error) => Err(error()),
                },
            )
        })
        .await;
        bench.queue("r1").await;
        let (_, asked) = tokio::join!(bench.world.process(), cancel(&bench, Duration::from_millis(4_500)));
        assert_eq!((asked, cleaned.get()), (Cancelled::Requested, 1));
        assert_cancelled(&bench).await;
    }
}

#[tokio::test(start_paused = true)]
async fn handler_whose_cancel_cleanup_takes_too_long_is_dropped() {
    let (cleaned, dropped) = (Count::default(), Count::default());
    let counts = (cleaned.clone(), dropped.clone());
    let bench = Bench::new(RetryPolicy::attempts(3), move |context| {
        let guard = CountsDrop(counts.1.clone());
        let cleans = cleans_up(context, Duration::from_secs(30), counts.0.clone(), Ok(Value::Null));
        async move {
            let _guard = guard;
            cleans.await
        }
    })
    .await;
    bench.queue_long("r1").await;
    let began = Instant::now();
    tokio::join!(bench.world.process(), cancel(&bench, Duration::from_millis(4_500)));
    assert!((9..=11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!((cleaned.get(), dropped.get()), (0, 1));
    assert_cancelled(&bench).await;
}

#[tokio::test(start_paused = true)]
async fn request_whose_handler_saves_a_checkpoint_after_a_cancel_request_is_cancelled() {
    let bench = Bench::new(RetryPolicy::never(), async |context: Context| {
        context.progress.stopped().await;
        context.progress.checkpoint("half").await?;
        Ok(Value::Null)
    })
    .await;
    bench.queue("r1").await;
    tokio::join!(bench.world.process(), cancel(&bench, Duration::from_secs(1)));
    assert_cancelled(&bench).await;
}

/// The handler fails or yields before its attempt has read the cancel request. The store then refuses the
/// attempt's write, because the item's cancel flag is set. Even a final failure sends no dead letter.
#[tokio::test(start_paused = true)]
async fn failure_retry_or_yield_after_an_unseen_cancel_request_becomes_a_cancellation() {
    let endings: [(RetryPolicy, fn() -> HandlerError); 4] = [
        (RetryPolicy::attempts(3), || HandlerError::retryable("BUSY", "busy")),
        (RetryPolicy::attempts(3), HandlerError::continue_later),
        (RetryPolicy::attempts(3), || HandlerError::failure("BROKEN", "broken")),
        // The policy `never()` allows one attempt, so that even a retryable error is final.
        (RetryPolicy::never(), || HandlerError::retryable("BUSY", "busy")),
    ];
    for (policy, error) in endings {
        let bench = Bench::new(policy, move |context: Context| async move {
            context.progress.checkpoint(1).await?;
            sleep(Duration::from_secs(5)).await;
            Err(error())
        })
        .await;
        bench.queue("r1").await;
        let (_, asked) = tokio::join!(bench.world.process(), cancel(&bench, Duration::from_secs(4)));
        assert_eq!(asked, Cancelled::Requested);
        assert_cancelled(&bench).await;
    }
}

#[tokio::test(start_paused = true)]
async fn request_cancelled_while_waiting_for_a_retry_is_never_retried() {
    let wait = Duration::from_secs(60);
    let bench = Bench::new(RetryPolicy::attempts(3), move |_| async move {
        Err(HandlerError::retryable("BUSY", "busy").retry_after(wait))
    })
    .await;
    bench.queue("r1").await;
    bench.world.process().await;
    let cancelled = cancel(&bench, Duration::from_secs(10)).await;
    assert!(matches!(cancelled, Cancelled::Now { .. }), "{cancelled:?}");
    sleep(Duration::from_secs(60)).await;
    let late = queue(&bench.world.db)
        .update_status(&key("r1"), Status::Retrying, NewStatus::Pending, bench.world.now())
        .await;
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::ConditionLost);
    bench.world.process().await;
    bench.world.work(key("r1")).await;
    assert_eq!((bench.started(), bench.status("r1").await), (1, Status::Cancelled));
}

/// A retry that is due in less than 5 s is awaited by the processor within its invocation. The cancel request
/// arrives during the wait.
#[tokio::test(start_paused = true)]
async fn request_cancelled_while_the_processor_waits_to_retry_it_is_not_run_again() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |context: Context| {
        if context.request_id.as_str() == "r1" {
            return Err(HandlerError::retryable("BUSY", "busy").retry_after(Duration::from_secs(3)));
        }
        sleep(Duration::from_secs(8)).await;
        Ok(Value::Null)
    })
    .await;
    bench.queue("r1").await;
    bench.queue("r2").await;
    tokio::join!(bench.world.process(), cancel(&bench, Duration::from_secs(1)));
    assert_eq!((bench.started(), bench.status("r1").await), (2, Status::Cancelled));
}

/// A claim is repeated if its response is lost. If the user cancels the request between the two claims, the repeated
/// claim succeeds although the cancel flag is set. The test sets the cancel flag in the table.
#[tokio::test(start_paused = true)]
async fn request_whose_cancel_was_requested_before_its_claim_is_not_run() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |_| Ok(Value::Null)).await;
    bench.queue("r1").await;
    bench.world.edit("r1", "SET cancel_requested = :value", AttributeValue::Bool(true)).await;
    bench.world.process().await;
    assert_eq!(bench.started(), 0);
    assert_cancelled(&bench).await;
}
