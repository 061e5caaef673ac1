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

/// A handler that counts its runs, and whose requests are always queued.
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
async fn throttled_dynamodb_write_is_retried() {
    let (stage, mut ann) = connected().await;
    let throttled = stage.faults().add(Fault::throttle(Call::dynamodb("PutItem").on(REQUESTS)).times(2));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(throttled.hits(), 2);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn retry_of_a_write_that_failed_after_taking_effect_creates_no_second_item() {
    let (stage, mut ann) = connected().await;
    let failed = stage.faults().add(Fault::fail_after_apply(Call::any_dynamodb().on(REQUESTS)).times(1));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(failed.hits(), 1);
    assert_eq!(stage.items("RequestsTable").await.unwrap().len(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn delay_fault_delays_a_call_by_the_stages_clock() {
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
async fn request_completes_although_its_connection_is_reported_gone() {
    let (stage, mut ann) = connected().await;
    ann.set_patience(Duration::from_secs(60));
    let gone = stage.faults().add(Fault::gone(Call::post()));
    ann.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert!(matches!(ann.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    let silent = ann.next_frame().await.unwrap_err().to_string();
    assert!(silent.starts_with("no frame came within 60 s; frames received before:"), "{silent}");
    assert!(gone.hits() > 0);
    assert_eq!(stage.items("RequestsTable").await.unwrap()[0]["status"], "COMPLETED");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failed_invocation_is_retried_by_the_event_source_mapping() {
    let (stage, mut ann) = connected().await;
    let failed = stage.faults().add(Fault::fail(Call::invoke("streamer-ProcessorFunction")).times(1));
    assert_complete(&print(&mut ann, 6).await);
    assert_eq!(failed.hits(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_completes_although_the_processor_is_killed_during_its_claim() {
    let (stage, mut ann) = connected().await;
    let claim = Call::dynamodb("UpdateItem").on(REQUESTS).by("streamer-ProcessorFunction");
    let killed = stage.faults().add(Fault::kill(claim).times(1));
    let frames = print(&mut ann, 6).await;
    assert_complete(&frames);
    assert_eq!(killed.hits(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn stream_record_delivered_twice_runs_its_request_once() {
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
    assert_eq!(seen.get(seen.len() - 2), last.as_ref(), "no frame comes after the terminal frame: {seen:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn ledger_lists_the_dynamodb_calls_of_a_request() {
    let (stage, mut ann) = connected().await;
    let ledger = stage.dynamodb().ledger();
    ann.request("echo", "r1", json!(1)).await.unwrap();
    ann.complete("r1").await.unwrap();
    let first = ledger.take().to_string();
    assert!(
        first.starts_with("GetItem streamer-ConnectionsTable"),
        "the first request reads the connection's record: {first}"
    );
    ann.request("echo", "r2", json!(2)).await.unwrap();
    ann.complete("r2").await.unwrap();
    assert_eq!(ledger.take().to_string(), "no calls", "the connection is cached after the first request");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn stage_starts_and_items_are_read_despite_faults_in_dynamodb() {
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
async fn reading_items_of_an_unknown_table_is_an_error() {
    let stage = stage().await;
    let error = stage.items("NoTable").await.unwrap_err().to_string();
    assert!(error.starts_with("the items of table NoTable cannot be read: "), "{error}");
    stage.shutdown().await;
}
