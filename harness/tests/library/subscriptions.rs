//! Who listens to a request: from any connection of its user, at any time, from where they were.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, HandlerError, handler_fn};
use streamer::protocol::{ErrorCode, Frame, Seq};
use tokio::time::sleep;

use crate::world::World;

/// Reports ten times, two seconds apart, and returns its payload.
async fn work(payload: Value, context: Context) -> Result<Value, HandlerError> {
    for n in 1..=10 {
        sleep(Duration::from_secs(2)).await;
        context.progress.report(f64::from(n) * 10.0, format!("Step {n}"))?;
    }
    Ok(payload)
}

/// Says that half is done, and then nothing for long.
async fn silent(_: Value, context: Context) -> Result<(), HandlerError> {
    context.progress.report(50.0, "Half")?;
    sleep(Duration::from_secs(50)).await;
    Ok(())
}

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

pub(crate) async fn over(world: &World, connection: &str, message: Value) -> Frame {
    serde_json::from_str(&world.say(connection, message).await).unwrap()
}

async fn subscribe(world: &World, connection: &str, id: &str, seq: u64) -> Frame {
    let payload = json!({"request_id": id, "seq": seq});
    over(world, connection, json!({"action": "subscribe", "id": "s1", "payload": payload})).await
}

pub(crate) fn snapshot_of(answer: Frame) -> Value {
    let Frame::Response { success: true, data: Some(data), .. } = answer else { panic!("{answer:?}") };
    data
}

pub(crate) fn code_of(answer: &Frame) -> ErrorCode {
    let Frame::Error { error, .. } = answer else { panic!("{answer:?}") };
    error.code.clone()
}

/// The numbers of the frames of a request's life that a connection was sent.
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

async fn ask(world: &World, action: &str, payload: Value) {
    let ack = world.ask(action, "r1", payload).await;
    assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn who_resumes_midway_is_told_how_it_stands_and_then_all_that_follows_once() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let resumes = async {
        sleep(Duration::from_millis(9_500)).await;
        // Steps 1 to 4 were pushed; how many of them are stored is the store's pace.
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert_eq!(snapshot["status"], "processing");
    let seen = snapshot["seq"].as_u64().unwrap();
    let told = seqs(&world, "c-ann2");
    assert!(told.iter().all(|seq| *seq > seen), "{seen}, then {told:?}");
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    let shown = snapshot["percentage"].as_f64().unwrap();
    let first_follows = shown + 10.0;
    let expected: Vec<f64> =
        (0..).map(|n| first_follows + f64::from(n) * 10.0).take_while(|p| *p <= 100.0).collect();
    assert_eq!(percentages(&world, "c-ann2"), expected, "nothing is left out, and nothing told twice");
    let last = world.clients.frames("c-ann2").pop().unwrap();
    assert_eq!(last, world.clients.frames("c-ann").pop().unwrap(), "the same end for everybody");
    assert!(matches!(last, Frame::Complete { result, .. } if result == "done"));
}

/// Nothing is stored or renewed in between: it is the write of the end that finds who has come.
#[tokio::test(start_paused = true)]
async fn who_comes_a_moment_before_the_end_is_told_the_end_alone() {
    let world = world().await;
    ask(&world, "silent", Value::Null).await;
    let resumes = async {
        sleep(Duration::from_secs(45)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert_eq!(snapshot["percentage"], 50.0);
    let told = world.clients.frames("c-ann2");
    assert!(matches!(&told[..], [Frame::Complete { .. }]), "the progress is in the snapshot: {told:?}");
    assert_eq!(percentages(&world, "c-ann"), [50.0]);
}

#[tokio::test(start_paused = true)]
async fn who_has_seen_more_than_is_stored_is_told_nothing_of_it_again() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    // A client that was sent frames which no stored report has caught up with yet.
    let seen = Seq::start_of(1).as_u64() + 7;
    let resumes = async {
        sleep(Duration::from_millis(9_500)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", seen).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), resumes);
    assert!(snapshot["seq"].as_u64().unwrap() < seen);
    let told = seqs(&world, "c-ann2");
    assert!(told.iter().all(|seq| *seq > seen), "{seen}, then {told:?}");
    assert_eq!(told.first(), Some(&(seen + 1)));
}

#[tokio::test(start_paused = true)]
async fn a_number_from_beyond_all_frames_costs_its_client_its_progress_and_never_the_end() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let resumes = async {
        sleep(Duration::from_secs(5)).await;
        subscribe(&world, "c-ann2", "r1", u64::MAX).await
    };
    tokio::join!(world.process(), resumes);
    let told = world.clients.frames("c-ann2");
    assert!(matches!(&told[..], [Frame::Complete { .. }]), "{told:?}");
    assert_eq!(percentages(&world, "c-ann").len(), 10, "nobody else is the worse for it");
}

#[tokio::test(start_paused = true)]
async fn who_comes_before_the_request_is_claimed_is_told_everything() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    let snapshot = snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert_eq!((&snapshot["status"], &snapshot["seq"]), (&json!("queued"), &json!(0)));
    assert_eq!(world.pending().len(), 2, "its record comes once more, and does no harm");
    world.process().await;
    assert_eq!(world.request("r1").await.attempt, 1);
    assert_eq!(world.clients.frames("c-ann2"), world.clients.frames("c-ann"));
    assert_eq!(percentages(&world, "c-ann2").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_silent_request_is_told_of_its_end() {
    let world = world().await;
    ask(&world, "silent", json!(1)).await;
    let comes = async {
        sleep(Duration::from_secs(30)).await;
        snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)
    };
    let (_, snapshot) = tokio::join!(world.process(), comes);
    assert_eq!((&snapshot["percentage"], &snapshot["message"]), (&json!(50.0), &json!("Half")));
    let told = world.clients.frames("c-ann2");
    assert!(matches!(&told[..], [Frame::Complete { .. }]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_resumes_after_the_end_is_sent_the_same_last_frame_at_once() {
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
        let told = world.clients.frames("c-ann2").split_off(before);
        let [last] = &told[..] else { panic!("{told:?}") };
        assert!(world.clients.frames("c-ann").contains(last), "{last:?}");
        let item = world.item(id).await;
        assert!(!item.contains_key("timer_at"), "told and noted: nobody needs to look again");
        assert_eq!(world.request(id).await.subscribers, []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_arrive_is_left_to_the_timer() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.fail("c-ann2", SendErrorKind::Unavailable);
    let asked = tokio::time::Instant::now();
    let snapshot = snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(snapshot["status"], "completed");
    assert_eq!(world.request("r1").await.subscribers, ["c-ann2".into()]);
    assert!(world.item("r1").await.contains_key("timer_at"));

    world.clients.fail_times("c-ann2", SendErrorKind::Unavailable, 0);
    snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await);
    assert_eq!(world.clients.frames("c-ann2").len(), 1);
    assert!(!world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_keeps_nobody_from_an_answer() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.hang("c-ann2");
    let asked = tokio::time::Instant::now();
    assert_eq!(snapshot_of(subscribe(&world, "c-ann2", "r1", 0).await)["status"], "completed");
    assert!(asked.elapsed() <= Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn who_has_left_by_then_is_nobody_to_look_for_again() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    world.clients.fail("c-ann2", SendErrorKind::Gone);
    subscribe(&world, "c-ann2", "r1", 0).await;
    assert!(!world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn another_user_cannot_listen_and_cannot_tell_that_there_is_anything() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.connect("c-ann-other", "other", "ann").await;
    for connection in ["c-bob", "c-ann-other"] {
        let anothers = subscribe(&world, connection, "r1", 0).await;
        let nobodys = subscribe(&world, connection, "r2", 0).await;
        assert_eq!(anothers, nobodys);
        assert_eq!(code_of(&anothers), ErrorCode::NotFound);
    }
    world.process().await;
    assert_eq!(code_of(&subscribe(&world, "c-bob", "r1", 0).await), ErrorCode::NotFound);
    assert_eq!(world.clients.frames("c-bob").len() + world.clients.frames("c-ann-other").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn sixteen_may_listen_and_those_who_have_left_make_room_for_others() {
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
    // Over another connection the request itself is not taken either: nobody would be told of it.
    let again = over(&world, "c-17", json!({"action": "work", "id": "r1", "payload": "done"})).await;
    assert_eq!(code_of(&again), ErrorCode::RateLimited);

    // Gone without a word: their records are, and nobody has taken them off.
    for gone in ["c-5", "c-9"] {
        world.disconnect(gone).await;
    }
    snapshot_of(subscribe(&world, "c-17", "r1", 0).await);
    let listening = world.request("r1").await.subscribers;
    assert_eq!(listening.len(), 15);
    assert!(listening.contains(&"c-17".into()) && !listening.contains(&"c-5".into()), "{listening:?}");
    world.process().await;
    for listener in ["c-ann", "c-2", "c-16", "c-17"] {
        let told = world.clients.frames(listener);
        assert!(matches!(told.last(), Some(Frame::Complete { .. })), "{listener}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_comes_again_over_another_connection_has_that_one_listen_too() {
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
    assert_eq!(world.clients.frames("c-late").pop(), last, "told at once");

    let other = json!({"action": "work", "id": "r1", "payload": "other"});
    assert_eq!(code_of(&over(&world, "c-ann3", other).await), ErrorCode::Conflict);
    let bobs = over(&world, "c-bob", message).await;
    assert!(matches!(&bobs, Frame::Acknowledgment { status, .. } if status == "queued"), "his own: {bobs:?}");
}

#[tokio::test(start_paused = true)]
async fn who_subscribes_twice_is_told_once() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    for _ in 0..3 {
        subscribe(&world, "c-ann2", "r1", 0).await;
        subscribe(&world, "c-ann", "r1", 0).await;
    }
    assert_eq!(world.request("r1").await.subscribers.len(), 2);
    world.process().await;
    for connection in ["c-ann", "c-ann2"] {
        let told = seqs(&world, connection);
        assert!(told.is_sorted_by(|a, b| a < b), "{connection}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_expired_is_no_request() {
    let world = world().await;
    ask(&world, "work", json!("done")).await;
    world.process().await;
    sleep(Duration::from_hours(7 * 24 + 1)).await;
    world.connect("c-ann2", "acme", "ann").await;
    assert_eq!(code_of(&subscribe(&world, "c-ann2", "r1", 0).await), ErrorCode::NotFound);
    assert_eq!(world.clients.frames("c-ann2"), []);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_fits_its_own_frame_alone_is_left_out_of_the_snapshot_and_sent() {
    let world = world().await;
    let ack = world.ask("large", "r1", json!(130_900)).await;
    assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    world.process().await;
    let [Frame::Complete { result, .. }] = &world.clients.frames("c-ann")[..] else {
        panic!("{:?}", world.clients.frames("c-ann").len())
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
