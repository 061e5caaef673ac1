//! Tests of subscriptions. Any connection of a request's user can subscribe to the request at any time, and receives
//! the frames after the last frame that its client has.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, HandlerError, handler_fn};
use streamer::protocol::{ErrorCode, Frame, Seq};
use tokio::time::sleep;

use crate::world::World;

/// Reports progress ten times, at intervals of two seconds, and returns its payload.
async fn work(payload: Value, context: Context) -> Result<Value, HandlerError> {
    for n in 1..=10 {
        sleep(Duration::from_secs(2)).await;
        context.progress.report(f64::from(n) * 10.0, format!("Step {n}"))?;
    }
    Ok(payload)
}

/// Reports 50 % and then sleeps for 50 seconds without a report.
async fn silent(_: Value, context: Context) -> Result<(), HandlerError> {
    context.progress.report(50.0, "Half")?;
    sleep(Duration::from_secs(50)).await;
    Ok(())
}

/// Creates a world with four actions whose requests are queued. The user ann has the connections `c-ann`, `c-ann2` and
/// `c-ann3`.
pub(crate) async fn world() -> World {
    let slow = Duration::from_secs(25);
    let mut app = App::new();
    let fail = |_: Value, _| async { Err::<(), _>(HandlerError::failure("CARD_DECLINED", "No")) };
    let large = |bytes: usize, _| async move { Ok("x".repeat(bytes)) };
    app.handle("work", handler_fn(work).estimated(slow))
        .unwrap()
        .handle("silent", handler_fn(silent).estimated(slow))
        .unwrap()
        .handle("fail", handler_fn(fail).estimated(slow))
        .unwrap()
        .handle("large", handler_fn(large).estimated(slow))
        .unwrap();
    let world = World::new(app).await;
    for connection in ["c-ann2", "c-ann3"] {
        world.connect(connection, "acme", "ann").await;
    }
    world
}

/// Sends `message` to the router over `connection` and returns the answer.
pub(crate) async fn over(world: &World, connection: &str, message: Value) -> Frame {
    serde_json::from_str(&world.say(connection, message).await).unwrap()
}

/// Subscribes `connection` to the request `id`, and returns the answer. `seq` is the sequence number of the last frame
/// that the client has.
async fn subscribe(world: &World, connection: &str, id: &str, seq: u64) -> Frame {
    let payload = json!({"request_id": id, "seq": seq});
    over(world, connection, json!({"action": "subscribe", "id": "s1", "payload": payload})).await
}

/// Returns the request's snapshot, which is the data of the successful response `answer`.
pub(crate) fn snapshot_of(answer: Frame) -> Value {
    let Frame::Response { success: true, data: Some(data), .. } = answer else { panic!("{answer:?}") };
    data
}

/// Returns the error code of the error frame `answer`.
pub(crate) fn code_of(answer: &Frame) -> ErrorCode {
    let Frame::Error { error, .. } = answer else { panic!("{answer:?}") };
    error.code.clone()
}

/// Returns the sequence numbers of the frames that were sent to `connection`, in order.
fn seqs(world: &World, connection: &str) -> Vec<u64> {
    let seq_of = |frame: Frame| match frame {
        Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => seq,
        Frame::Error { seq: Some(seq), .. } => seq,
        Frame::Error { seq: None, .. } | Frame::Response { .. } | Frame::Acknowledgment { .. } => {
            panic!("{frame:?}")
        }
    };
    world.clients.frames(connection).into_iter().map(|frame| seq_of(frame).as_u64()).collect()
}

/// Returns the percentages of the progress frames that were sent to `connection`, in order.
fn percentages(world: &World, connection: &str) -> Vec<f64> {
    let percentage = |frame: &Frame| match frame {
        Frame::Progress { percentage, .. } => Some(*percentage),
        Frame::Response { .. }
        | Frame::Acknowledgment { .. }
        | Frame::Complete { .. }
        | Frame::Error { .. } => None,
    };
    world.clients.frames(connection).iter().filter_map(percentage).collect()
}

/// Sends the request `r1` as ann, and asserts that the request is queued.
async fn ask(world: &World, action: &str, payload: Value) {
    let ack = world.ask(action, "r1", payload).await;
    assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn subscriber_that_resumes_midway_receives_a_snapshot_and_each_later_frame_once() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let resumes = async {
        sleep(Duration::from_millis(9_500)).await;
        // Steps 1 to 4 were pushed. The number of stored steps depends on the interval between stored reports.
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert_eq!(snapshot["status"], "processing");
    let snapshot_seq = snapshot["seq"].as_u64().unwrap();
    let received = seqs(&world, "c-ann2");
    assert!(
        received.iter().all(|seq| *seq > snapshot_seq),
        "all frames are newer than the snapshot's {snapshot_seq}: {received:?}"
    );
    assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
    let first_expected = snapshot["percentage"].as_f64().unwrap() + 10.0;
    let expected: Vec<f64> =
        (0..).map(|n| first_expected + f64::from(n) * 10.0).take_while(|p| *p <= 100.0).collect();
    assert_eq!(percentages(&world, "c-ann2"), expected, "each step after the snapshot is received once");
    let last = world.clients.frames("c-ann2").pop().unwrap();
    assert_eq!(
        last,
        world.clients.frames("c-ann").pop().unwrap(),
        "both connections receive the same terminal frame"
    );
    assert!(matches!(last, Frame::Complete { result, .. } if result == "done"));
}

/// The attempt stores no report and renews no lease after the subscription. It learns of the new subscriber from the
/// answer to its terminal write.
#[tokio::test(start_paused = true)]
async fn subscriber_that_joins_just_before_completion_receives_only_the_terminal_frame() {
    let world = world().await;
    ask(&world, "silent", Value::Null).await;
    let resumes = async {
        sleep(Duration::from_secs(45)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert_eq!(snapshot["percentage"], 50.0);
    let received = world.clients.frames("c-ann2");
    assert!(
        matches!(&received[..], [Frame::Complete { .. }]),
        "only the terminal frame is pushed to the new subscriber: {received:?}"
    );
    assert_eq!(percentages(&world, "c-ann"), [50.0]);
}

#[tokio::test(start_paused = true)]
async fn subscriber_ahead_of_the_stored_progress_receives_no_frame_twice() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    // The client claims to have received frames that are newer than the last stored report.
    let client_seq = Seq::start_of(1).as_u64() + 7;
    let resumes = async {
        sleep(Duration::from_millis(9_500)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", client_seq).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert!(snapshot["seq"].as_u64().unwrap() < client_seq);
    let received = seqs(&world, "c-ann2");
    assert!(
        received.iter().all(|seq| *seq > client_seq),
        "all frames are newer than the client's {client_seq}: {received:?}"
    );
    assert_eq!(received.first(), Some(&(client_seq + 1)));
}

#[tokio::test(start_paused = true)]
async fn subscriber_with_an_impossibly_high_seq_still_receives_the_terminal_frame() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let resumes = async {
        sleep(Duration::from_secs(5)).await;
        subscribe(&world, "c-ann2", "r1", u64::MAX).await
    };
    tokio::join!(world.process(), resumes);
    let received = world.clients.frames("c-ann2");
    assert!(matches!(&received[..], [Frame::Complete { .. }]), "{received:?}");
    assert_eq!(percentages(&world, "c-ann").len(), 10, "ann's first connection receives all progress frames");
}

#[tokio::test(start_paused = true)]
async fn subscriber_that_joins_before_the_claim_receives_every_frame() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let snapshot = snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert_eq!((&snapshot["status"], &snapshot["seq"]), (&json!("queued"), &json!(0)));
    assert_eq!(
        world.pending().len(),
        2,
        "the subscription writes the pending request again, which adds a stream record"
    );
    world.process().await;
    assert_eq!(world.request("r1").await.attempt, 1);
    assert_eq!(world.clients.frames("c-ann2"), world.clients.frames("c-ann"));
    assert_eq!(percentages(&world, "c-ann2").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn subscriber_that_joins_a_request_without_new_reports_receives_the_terminal_frame() {
    let world = world().await;
    ask(&world, "silent", json!(1)).await;
    let comes = async {
        sleep(Duration::from_secs(30)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), comes);
    assert_eq!((&snapshot["percentage"], &snapshot["message"]), (&json!(50.0), &json!("Half")));
    let received = world.clients.frames("c-ann2");
    assert!(matches!(&received[..], [Frame::Complete { .. }]), "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn late_subscriber_receives_the_same_terminal_frame_as_earlier_subscribers() {
    let world = world().await;
    for (id, action) in [("r1", "work"), ("r2", "fail")] {
        world.ask(action, id, json!("done")).await;
    }
    world.process().await;
    for (id, status) in [("r1", "completed"), ("r2", "failed")] {
        sleep(Duration::from_secs(60)).await;
        let before = world.clients.frames("c-ann2").len();
        let snapshot = snapshot_of(subscribe(&world, "c-ann2", id, 3).await);
        assert_eq!(snapshot["status"], status);
        let received = world.clients.frames("c-ann2").split_off(before);
        let [last] = &received[..] else { panic!("{received:?}") };
        assert!(world.clients.frames("c-ann").contains(last), "{last:?}");
        let item = world.item(id).await;
        assert!(!item.contains_key("timer_at"), "the delivery is recorded and the request has no timer");
        assert_eq!(world.request(id).await.subscribers, []);
    }
}

#[tokio::test(start_paused = true)]
async fn terminal_frame_that_cannot_be_pushed_on_subscribe_is_left_to_the_sweeper() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.fail("c-ann2", SendErrorKind::Unavailable);
    let sent = tokio::time::Instant::now();
    let snapshot = snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    assert_eq!(snapshot["status"], "completed");
    assert_eq!(world.request("r1").await.subscribers, ["c-ann2".into()]);
    assert!(world.item("r1").await.contains_key("timer_at"));

    world.clients.fail_times("c-ann2", SendErrorKind::Unavailable, 0);
    snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert_eq!(world.clients.frames("c-ann2").len(), 1);
    assert!(!world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn subscribe_is_answered_within_four_seconds_although_pushes_to_its_client_hang() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.hang("c-ann2");
    let sent = tokio::time::Instant::now();
    assert_eq!(snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)["status"], "completed");
    assert!(sent.elapsed() <= Duration::from_secs(4), "{:?}", sent.elapsed());
    assert!(world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn subscribe_to_a_completed_request_over_a_closed_connection_sets_no_timer() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.fail("c-ann2", SendErrorKind::Gone);
    subscribe(&world, "c-ann2", "r1", 0).await;
    assert!(!world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn users_cannot_subscribe_to_or_detect_the_requests_of_other_users() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.connect("c-ann-other", "other", "ann").await;
    for connection in ["c-bob", "c-ann-other"] {
        let existing = subscribe(&world, connection, "r1", 0).await;
        let missing = subscribe(&world, connection, "r2", 0).await;
        assert_eq!(existing, missing);
        assert_eq!(code_of(&existing), ErrorCode::NotFound);
    }
    world.process().await;
    assert_eq!(code_of(&subscribe(&world, "c-bob", "r1", 0).await), ErrorCode::NotFound);
    assert_eq!(world.clients.frames("c-bob").len() + world.clients.frames("c-ann-other").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn request_has_at_most_16_subscribers_and_closed_connections_make_room_for_new_ones() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    for n in 2..=17 {
        world.connect(&format!("c-{n}"), "acme", "ann").await;
    }
    for n in 2..=16 {
        snapshot_of(subscribe(&world, &format!("c-{n}"), "r1", 0).await);
    }
    let full =
        world.say("c-17", json!({"action": "subscribe", "id": "s1", "payload": {"request_id": "r1"}})).await;
    assert_snapshot!(full, @r#"{"type":"error","request_id":"s1","error":{"code":"RATE_LIMITED","message":"The request already has 16 subscribers, the maximum","details":{"max_subscribers":16}},"timestamp":1700000000}"#);
    snapshot_of(subscribe(&world, "c-16", "r1", 0).await);
    // A repeat of the message that queued r1 is also refused on the 17th connection, because the message would
    // subscribe the connection.
    let again = over(&world, "c-17", json!({"action": "work", "id": "r1", "payload": "done"})).await;
    assert_eq!(code_of(&again), ErrorCode::RateLimited);

    // The items of two connections are deleted. The request still lists these two connections as subscribers.
    for gone in ["c-5", "c-9"] {
        world.disconnect(gone).await;
    }
    snapshot_of(subscribe(&world, "c-17", "r1", 0).await);
    let subscribers = world.request("r1").await.subscribers;
    assert_eq!(subscribers.len(), 15);
    assert!(subscribers.contains(&"c-17".into()) && !subscribers.contains(&"c-5".into()), "{subscribers:?}");
    world.process().await;
    for connection in ["c-ann", "c-2", "c-16", "c-17"] {
        let received = world.clients.frames(connection);
        assert!(matches!(received.last(), Some(Frame::Complete { .. })), "{connection}: {received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_repeated_over_a_second_connection_subscribes_the_second_connection() {
    let world = world().await;
    let message = json!({"action": "work", "id": "r1", "payload": "done"});
    over(&world, "c-ann", message.clone()).await;
    let again = over(&world, "c-ann2", message.clone()).await;
    assert!(matches!(&again, Frame::Acknowledgment { status, .. } if status == "queued"), "{again:?}");
    let comes = async {
        sleep(Duration::from_secs(9)).await;
        over(&world, "c-ann3", message.clone()).await
    };
    let (_, midway) = tokio::join!(world.process(), comes);
    assert!(matches!(&midway, Frame::Acknowledgment { status, .. } if status == "processing"), "{midway:?}");
    assert_eq!(world.clients.frames("c-ann2"), world.clients.frames("c-ann"));
    assert!(percentages(&world, "c-ann3").len() < 10);
    let last = world.clients.frames("c-ann").pop();
    assert_eq!(world.clients.frames("c-ann3").pop(), last);

    world.connect("c-late", "acme", "ann").await;
    let late = over(&world, "c-late", message.clone()).await;
    assert!(matches!(&late, Frame::Acknowledgment { status, .. } if status == "completed"), "{late:?}");
    assert_eq!(
        world.clients.frames("c-late").pop(),
        last,
        "the late subscriber receives the terminal frame immediately"
    );

    let other = json!({"action": "work", "id": "r1", "payload": "other"});
    assert_eq!(code_of(&over(&world, "c-ann3", other).await), ErrorCode::Conflict);
    let bobs = over(&world, "c-bob", message).await;
    assert!(
        matches!(&bobs, Frame::Acknowledgment { status, .. } if status == "queued"),
        "bob's request with the same id is a separate request: {bobs:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn connection_that_subscribes_twice_receives_each_frame_once() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    for _ in 0..3 {
        subscribe(&world, "c-ann2", "r1", 0).await;
        subscribe(&world, "c-ann", "r1", 0).await;
    }
    assert_eq!(world.request("r1").await.subscribers.len(), 2);
    world.process().await;
    for connection in ["c-ann", "c-ann2"] {
        let received = seqs(&world, connection);
        assert!(received.is_sorted_by(|a, b| a < b), "{connection}: {received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribe_to_a_request_past_its_ttl_is_answered_with_not_found() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    sleep(Duration::from_hours(7 * 24 + 1)).await;
    world.connect("c-ann2", "acme", "ann").await;
    assert_eq!(code_of(&subscribe(&world, "c-ann2", "r1", 0).await), ErrorCode::NotFound);
    assert_eq!(world.clients.frames("c-ann2"), []);
}

#[tokio::test(start_paused = true)]
async fn result_too_large_for_a_snapshot_is_sent_only_in_the_terminal_frame() {
    let world = world().await;
    let ack = world.ask("large", "r1", json!(130_900)).await;
    assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    world.process().await;
    let [Frame::Complete { result, .. }] = &world.clients.frames("c-ann")[..] else {
        panic!("exactly one frame is sent to c-ann, not {}", world.clients.frames("c-ann").len())
    };
    assert_eq!(result.as_str().map(str::len), Some(130_900));
    let status = json!({"action": "status", "id": "s1", "payload": {"request_id": "r1"}});
    for snapshot in [over(&world, "c-ann2", status).await, subscribe(&world, "c-ann2", "r1", 0).await] {
        let snapshot = snapshot_of(snapshot);
        assert_eq!(snapshot["status"], "completed");
        assert_eq!((&snapshot["result_omitted"], snapshot.get("result")), (&json!(true), None));
    }
    assert_eq!(world.clients.frames("c-ann2"), world.clients.frames("c-ann"));
}
