use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::Frame;
use streamer_harness::client::Client;
use streamer_harness::faults::{Call, Fault, Faults};
use streamer_harness::stage::Stage;

use crate::{ann, builder, stage};

const REQUESTS: &str = "streamer-RequestsTable";

/// Is always queued, and counts its runs.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Handler for Counted {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_mins(1)
    }

    async fn process(&self, _: Value, _: Context) -> Result<Value, HandlerError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(Value::Null)
    }
}

async fn print(client: &mut Client, pages: u32) -> Vec<Frame> {
    client.request("print", "r1", json!({"pages": pages})).await.unwrap();
    client.frames_until_terminal("r1").await.unwrap()
}

fn assert_complete(frames: &[Frame]) {
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");
}

async fn connected() -> (Stage, Client) {
    let stage = stage().await;
    let client = stage.connect(&ann()).await.unwrap();
    (stage, client)
}

#[tokio::test(start_paused = true)]
async fn a_throttled_write_is_tried_again() {
    let (stage, mut ann) = connected().await;
    let throttled = stage.faults().add(Fault::throttle(Call::dynamodb("PutItem").on(REQUESTS)).times(2));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(throttled.hits(), 2);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_after_it_has_taken_effect_is_not_done_twice() {
    let (stage, mut ann) = connected().await;
    let failed = stage.faults().add(Fault::fail_after_apply(Call::any_dynamodb().on(REQUESTS)).times(1));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(failed.hits(), 1);
    assert_eq!(stage.items("RequestsTable").await.unwrap().len(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_delayed_takes_that_much_of_the_stages_time() {
    let (stage, mut ann) = connected().await;
    let slow = stage.faults().add(Fault::delay(Call::dynamodb("PutItem"), Duration::from_secs(2)).times(1));
    let asked = stage.now();
    ann.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert!(matches!(ann.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    assert_eq!((slow.hits(), stage.now().since(asked).as_secs()), (1, 2));
    assert_complete(&ann.frames_until_terminal("r1").await.unwrap());
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_said_to_be_gone_gets_no_more_frames_and_its_request_ends_all_the_same() {
    let (stage, mut ann) = connected().await;
    ann.set_patience(Duration::from_secs(60));
    let gone = stage.faults().add(Fault::gone(Call::post()));
    ann.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert!(matches!(ann.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    let silent = ann.next_frame().await.unwrap_err().to_string();
    assert!(silent.starts_with("no frame came for 60 s; before that came:"), "{silent}");
    assert!(gone.hits() > 0);
    assert_eq!(stage.items("RequestsTable").await.unwrap()[0]["status"], "COMPLETED");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_fails_is_tried_again_by_the_mapping() {
    let (stage, mut ann) = connected().await;
    let failed = stage.faults().add(Fault::fail(Call::invoke("streamer-ProcessorFunction")).times(1));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(failed.hits(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_killed_at_its_claim_is_started_anew_and_finds_the_request_as_it_was() {
    let (stage, mut ann) = connected().await;
    let claim = Call::dynamodb("UpdateItem").on(REQUESTS).by("streamer-ProcessorFunction");
    let killed = stage.faults().add(Fault::kill(claim).times(1));
    let frames = print(&mut ann, 6).await;
    assert_complete(&frames);
    assert_eq!(killed.hits(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_are_delivered_twice_run_their_request_once() {
    let (mut app, runs) = (App::new(), Arc::new(AtomicU32::new(0)));
    app.handle("print", Counted(Arc::clone(&runs))).unwrap().handle("echo", crate::echo).unwrap();
    let stage = Stage::builder().app(app).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    let twice = stage.faults().add(Fault::duplicate(Call::records(REQUESTS)));
    let frames = print(&mut ann, 6).await;
    assert_complete(&frames);
    assert!(twice.hits() > 0);
    stage.advance(Duration::from_mins(2)).await;
    let last = ann.seen().last().cloned();
    ann.request("echo", "r2", json!(null)).await.unwrap();
    ann.complete("r2").await.unwrap();
    let seen = ann.seen();
    assert_eq!(seen.get(seen.len() - 2), last.as_ref(), "nothing came after the end: {seen:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_ledger_tells_what_a_request_cost() {
    let (stage, mut ann) = connected().await;
    let ledger = stage.dynamodb().ledger();
    ann.request("echo", "r1", json!(1)).await.unwrap();
    ann.complete("r1").await.unwrap();
    let first = ledger.take().to_string();
    assert!(first.starts_with("GetItem streamer-ConnectionsTable"), "who is connected is read once: {first}");
    ann.request("echo", "r2", json!(2)).await.unwrap();
    ann.complete("r2").await.unwrap();
    assert_eq!(ledger.take().to_string(), "no calls", "and known from then on");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stage_starts_and_shows_its_items_whatever_goes_wrong_with_its_database() {
    let any = Call::any_dynamodb;
    for fault in [
        Fault::delay(any(), Duration::from_secs(5)),
        Fault::lose_answer(any()),
        Fault::throttle(any()),
        Fault::fail(any()),
    ] {
        let faults = Faults::default();
        let guard = faults.add(fault);
        let stage = builder().faults(faults).start().await.unwrap();
        let ledger = stage.dynamodb().ledger();
        assert!(stage.items("RequestsTable").await.unwrap().is_empty());
        assert_eq!((guard.hits(), ledger.take().to_string().as_str()), (0, "no calls"));
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_table_that_is_not_there_cannot_be_read() {
    let stage = stage().await;
    let error = stage.items("NoTable").await.unwrap_err().to_string();
    assert!(error.starts_with("the items of table NoTable cannot be read: "), "{error}");
    stage.shutdown().await;
}
