//! The `cancel` action on requests that are unclaimed, running, waiting for a retry, or already terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, HandlerError, RetryPolicy, handler_fn};
use streamer::protocol::{ErrorCode, Frame};
use streamer::store::Status;
use tokio::time::{Instant, sleep};

use crate::subscriptions::{code_of, over, snapshot_of};
use crate::world::{CONNECTIONS, World, message};

/// Number of handlers that received the stop signal (because of a cancel request) and finished their cleanup.
type Cleaned = Arc<AtomicU32>;

async fn world() -> (World, Cleaned) {
    let cleaned = Cleaned::default();
    let counts = Arc::clone(&cleaned);
    let hour = move |_: Value, context: Context| {
        let cleaned = Arc::clone(&counts);
        async move {
            context.progress.report(10.0, "Begun")?;
            tokio::select! {
                biased;
                reason = context.progress.stopped() => {
                    sleep(Duration::from_secs(1)).await;
                    cleaned.fetch_add(1, Ordering::SeqCst);
                    Err(HandlerError::failure("STOPPED", format!("{reason:?}")))
                }
                () = sleep(Duration::from_secs(600)) => Ok("done"),
            }
        }
    };
    let flaky = |_: Value, _| async { Err::<(), _>(HandlerError::retryable("BUSY", "The source is busy")) };
    let slow = Duration::from_secs(25);
    let mut app = App::new();
    let patient = RetryPolicy::attempts(5).base(Duration::from_mins(2));
    app.handle("hour", handler_fn(hour).estimated(slow))
        .unwrap()
        .handle("flaky", handler_fn(flaky).estimated(slow).retry(patient))
        .unwrap()
        .handle("quick", handler_fn(|(): (), _| async { Ok(()) }).estimated(slow))
        .unwrap();
    let world = World::new(app).await;
    world.connect("c-ann2", "acme", "ann").await;
    (world, cleaned)
}

async fn cancel(world: &World, connection: &str, id: &str) -> Frame {
    over(world, connection, json!({"action": "cancel", "id": "x1", "payload": {"request_id": id}})).await
}

/// Asserts that the last frame sent to the connection is the CANCELLED error, and that no earlier frame is a
/// CANCELLED error.
fn assert_cancelled_is_last_frame(world: &World, connection: &str) {
    let frames = world.clients.frames(connection);
    let is_cancelled = |frame: &Frame| matches!(frame, Frame::Error { error, seq: Some(_), .. } if error.code == ErrorCode::Cancelled);
    assert!(frames.last().is_some_and(is_cancelled), "{connection}: {frames:?}");
    assert_eq!(frames.iter().filter(|frame| is_cancelled(frame)).count(), 1, "{connection}: {frames:?}");
}

#[tokio::test(start_paused = true)]
async fn cancel_of_an_unclaimed_request_is_immediate_and_delivered_to_every_subscriber() {
    let (world, _) = world().await;
    world.ask("hour", "r1", json!(1)).await;
    over(&world, "c-ann2", json!({"action": "subscribe", "payload": {"request_id": "r1"}})).await;
    let answer =
        world.say("c-ann2", json!({"action": "cancel", "id": "x1", "payload": {"request_id": "r1"}})).await;
    let frames = world.clients.frames("c-ann").iter().map(Frame::to_json).collect::<Vec<_>>().join("\n");
    assert_snapshot!(format!("{answer}\n{frames}"), @r#"
    {"type":"response","request_id":"x1","success":true,"data":{"request_id":"r1","status":"cancelled","percentage":0.0,"message":"","seq":1,"attempt":0,"max_attempts":3,"created_at":1700000000,"finished_at":1700000000,"error":{"code":"CANCELLED","message":"The request was cancelled"}}}
    {"type":"error","request_id":"r1","error":{"code":"CANCELLED","message":"The request was cancelled"},"timestamp":1700000000,"seq":1}
    "#);
    for connection in ["c-ann", "c-ann2"] {
        assert_cancelled_is_last_frame(&world, connection);
    }
    let request = world.request("r1").await;
    assert_eq!((request.status, &request.subscribers[..]), (Status::Cancelled, &[][..]));
    assert!(
        !world.item("r1").await.contains_key("timer_at"),
        "the timer is cleared once every subscriber has the terminal frame"
    );

    let response = world.process().await;
    assert_eq!(
        response.batch_item_failures,
        [],
        "the stream record of a cancelled request is not a batch item failure"
    );
    assert_eq!(world.request("r1").await.status, Status::Cancelled);
    assert_cancelled_is_last_frame(&world, "c-ann");
}

#[tokio::test(start_paused = true)]
async fn running_handler_can_clean_up_before_its_cancel_is_confirmed() {
    let (world, cleaned) = world().await;
    world.ask("hour", "r1", json!(1)).await;
    let cancels = async {
        sleep(Duration::from_secs(30)).await;
        let first = snapshot_of(cancel(&world, "c-ann2", "r1").await);
        let second = snapshot_of(cancel(&world, "c-ann", "r1").await);
        (first, second, Instant::now())
    };
    let (_, (first, second, asked_at)) = tokio::join!(world.process(), cancels);
    assert!(
        asked_at.elapsed() <= Duration::from_secs(25),
        "the attempt stops within 25 s, after it reads the cancel request at its next lease renewal: {:?}",
        asked_at.elapsed()
    );
    for snapshot in [first, second] {
        assert_eq!(
            (&snapshot["status"], &snapshot["cancel_requested"]),
            (&json!("processing"), &json!(true))
        );
    }
    assert_eq!(cleaned.load(Ordering::SeqCst), 1);
    assert_cancelled_is_last_frame(&world, "c-ann");
    assert_eq!(world.request("r1").await.status, Status::Cancelled);

    let after = snapshot_of(cancel(&world, "c-ann", "r1").await);
    assert_eq!((&after["status"], after.get("cancel_requested")), (&json!("cancelled"), None));
    assert_cancelled_is_last_frame(&world, "c-ann");
}

#[tokio::test(start_paused = true)]
async fn cancel_of_a_request_waiting_for_a_retry_is_immediate_and_prevents_the_retry() {
    let (world, _) = world().await;
    world.ask("flaky", "r1", json!(1)).await;
    world.process().await;
    assert_eq!(world.request("r1").await.status, Status::Retrying);
    let snapshot = snapshot_of(cancel(&world, "c-ann", "r1").await);
    assert_eq!((&snapshot["status"], &snapshot["attempt"]), (&json!("cancelled"), &json!(1)));
    assert_cancelled_is_last_frame(&world, "c-ann");
    sleep(Duration::from_mins(10)).await;
    world.process().await;
    let request = world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Cancelled, 1));
    assert_cancelled_is_last_frame(&world, "c-ann");
}

#[tokio::test(start_paused = true)]
async fn cancel_of_a_completed_request_returns_its_result_and_changes_nothing() {
    let (world, _) = world().await;
    world.ask("quick", "r1", json!(null)).await;
    world.process().await;
    let before = world.clients.frames("c-ann");
    let snapshot = snapshot_of(cancel(&world, "c-ann", "r1").await);
    assert_eq!(snapshot["status"], "completed");
    assert_eq!(snapshot.get("result"), Some(&json!(null)));
    assert_eq!(world.clients.frames("c-ann"), before, "cancelling a completed request sends no frame");
}

#[tokio::test(start_paused = true)]
async fn cancel_leaves_an_unreachable_subscriber_to_the_sweeper_and_answers_promptly() {
    let (world, _) = world().await;
    world.ask("hour", "r1", json!(1)).await;
    over(&world, "c-ann2", json!({"action": "subscribe", "payload": {"request_id": "r1"}})).await;
    world.clients.fail("c-ann2", SendErrorKind::Unavailable);
    let asked = Instant::now();
    assert_eq!(snapshot_of(cancel(&world, "c-ann", "r1").await)["status"], "cancelled");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_cancelled_is_last_frame(&world, "c-ann");
    assert_eq!(world.request("r1").await.subscribers, ["c-ann2".into()]);
    assert!(world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn request_can_be_cancelled_only_by_the_user_who_submitted_it() {
    let (world, _) = world().await;
    world.ask("hour", "r1", json!(1)).await;
    world.connect("c-ann-other", "other", "ann").await;
    for connection in ["c-bob", "c-ann-other"] {
        let anothers = cancel(&world, connection, "r1").await;
        assert_eq!(anothers, cancel(&world, connection, "r2").await);
        assert_eq!(code_of(&anothers), ErrorCode::NotFound);
    }
    assert_eq!(world.request("r1").await.status, Status::Pending);
    assert_eq!(world.clients.frames("c-ann"), []);
}

#[tokio::test(start_paused = true)]
async fn store_failure_during_status_subscribe_or_cancel_is_an_internal_error() {
    let (world, _) = world().await;
    let router = world.router_on(CONNECTIONS, "no-such-table");
    let mut answers = Vec::new();
    for action in ["status", "subscribe", "cancel"] {
        let ask = json!({"action": action, "id": "x1", "payload": {"request_id": "r1"}}).to_string();
        answers.push(router.route(&message("c-ann", json!(ask), false)).await);
    }
    assert_snapshot!(answers.join("\n"), @r#"
    {"type":"error","request_id":"x1","error":{"code":"INTERNAL_ERROR","message":"Internal server error; try again"},"timestamp":1700000000}
    {"type":"error","request_id":"x1","error":{"code":"INTERNAL_ERROR","message":"Internal server error; try again"},"timestamp":1700000000}
    {"type":"error","request_id":"x1","error":{"code":"INTERNAL_ERROR","message":"Internal server error; try again"},"timestamp":1700000000}
    "#);
}

#[tokio::test(start_paused = true)]
async fn middleware_layer_can_refuse_cancel_and_subscribe() {
    use streamer::middleware::{Call, CallError, Next, from_fn};
    use streamer::protocol::ErrorBody;

    let mut app = App::new();
    app.handle("hour", handler_fn(|(): (), _| async { Ok(()) }).estimated(Duration::from_secs(25))).unwrap();
    app.layer(from_fn(async |call: Call, next: Next| {
        if ["cancel", "subscribe"].contains(&call.context.action.as_str()) {
            let error = ErrorBody::new(ErrorCode::Forbidden, "Not today");
            return Err(CallError::refused(error).into());
        }
        next.run(call).await
    }));
    let world = World::new(app).await;
    world.ask("hour", "r1", json!(null)).await;
    for action in ["cancel", "subscribe"] {
        let answer = world.ask(action, "x1", json!({"request_id": "r1"})).await;
        assert_eq!(code_of(&answer), ErrorCode::Forbidden);
    }
    assert_eq!(world.request("r1").await.status, Status::Pending);
}
