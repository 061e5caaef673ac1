//! Requests whose end is asked for while they are run, or wait.

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

/// Nothing is said or done any more about what is cancelled.
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

/// Reports each second until it is told to stop, and cleans up for this long then; whatever it returns does not count.
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
async fn a_handler_can_clean_up_and_what_it_returns_then_does_not_count() {
    let errors: [Option<fn() -> HandlerError>; 4] = [
        None,
        Some(|| HandlerError::failure("A", "a")),
        Some(|| HandlerError::retryable("A", "a")),
        Some(HandlerError::go_on_later),
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
async fn a_handler_that_takes_too_long_to_clean_up_is_dropped() {
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
async fn while_it_cleans_up_its_lease_is_renewed_and_a_checkpoint_saved() {
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

/// It fails, or wants to go on later, before its attempt has seen that its end is asked for: the write finds it. What
/// has failed for good is no dead letter then.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_not_heard_of_it_neither_fails_nor_retries_nor_goes_on() {
    let endings: [(RetryPolicy, fn() -> HandlerError); 4] = [
        (RetryPolicy::attempts(3), || HandlerError::retryable("BUSY", "busy")),
        (RetryPolicy::attempts(3), HandlerError::go_on_later),
        (RetryPolicy::attempts(3), || HandlerError::failure("BROKEN", "broken")),
        // No attempt is left.
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
async fn what_waits_for_its_next_attempt_is_cancelled_and_never_tried_again() {
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

/// Cancelled while it is waited for in place.
#[tokio::test(start_paused = true)]
async fn what_is_waited_for_in_place_and_cancelled_is_not_run() {
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

/// As a claim finds it whose answer was lost, and which has succeeded.
#[tokio::test(start_paused = true)]
async fn what_is_to_end_when_it_is_claimed_is_not_run() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |_| Ok(Value::Null)).await;
    bench.queue("r1").await;
    bench.world.edit("r1", "SET cancel_requested = :value", AttributeValue::Bool(true)).await;
    bench.world.process().await;
    assert_eq!(bench.started(), 0);
    assert_cancelled(&bench).await;
}
