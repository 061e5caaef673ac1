//! Tests of recovery: requests whose handlers, functions, queues or connections fail.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::dead_letters::{DeadLetter, Redriven, redrive};
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::protocol::{Frame, Seq};
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer_harness::client::Client;
use streamer_harness::faults::{Call, Fault};
use streamer_harness::lambda::Functions;
use streamer_harness::stage::Stage;
use tokio::time::Instant;

use crate::ann;

const REQUESTS: &str = "streamer-RequestsTable";
const DEAD_LETTERS: &str = "streamer-DeadLetterQueue";
const PROCESSOR: &str = "streamer-ProcessorFunction";
const WORKER: &str = "streamer-WorkerFunction";

/// A handler that works for the requested time and fails the requested number of attempts.
#[derive(Clone, Debug, Default)]
struct Work(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    begun: Mutex<Vec<Instant>>,
    is_fixed: AtomicBool,
    runs: AtomicU32,
    /// The stage's functions, which a poisonous request kills.
    functions: OnceLock<Functions>,
}

#[derive(Debug, Deserialize)]
struct Order {
    #[serde(default = "six")]
    secs: u32,
    /// Number of attempts that fail; with `u32::MAX`, all attempts fail until the handler is fixed.
    #[serde(default)]
    failures: u32,
    /// True if the request kills each function that runs the request.
    #[serde(default)]
    is_poison: bool,
}

const fn six() -> u32 {
    6
}

impl Handler for Work {
    type Input = Order;
    type Output = u32;

    fn estimated_duration(&self, order: &Order) -> Duration {
        Duration::from_secs(1) * order.secs
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::attempts(3).base(Duration::ZERO)
    }

    async fn process(&self, order: Order, context: Context) -> Result<u32, HandlerError> {
        self.0.begun.lock().unwrap().push(Instant::now());
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        if context.attempt <= order.failures && !self.0.is_fixed.load(Ordering::Relaxed) {
            let busy = HandlerError::retryable("BUSY", "The source is busy");
            return Err(busy.retry_after(Duration::from_secs(5)));
        }
        for second in 1..=order.secs {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let percentage = f64::from(second) / f64::from(order.secs) * 100.0;
            context.progress.report(percentage, format!("Second {second}"))?;
            // A kill stops every environment of a function. The worker is killed in the last second, when it
            // runs no other request.
            let (function, at) = if context.attempt == 1 { (PROCESSOR, 3) } else { (WORKER, order.secs) };
            if let (true, Some(functions)) = (order.is_poison && second == at, self.0.functions.get()) {
                functions.kill(function).unwrap();
            }
        }
        Ok(order.secs)
    }
}

/// Starts a stage, lets its sweeper run for two minutes, and returns the stage, its handler and a client.
async fn stage() -> (Stage, Work, Client) {
    let (mut app, work) = (App::new(), Work::default());
    app.handle("work", work.clone()).unwrap();
    let stage = Stage::builder().app(app).start().await.unwrap();
    stage.advance(Duration::from_mins(2)).await;
    let ann = stage.connect(&ann()).await.unwrap();
    (stage, work, ann)
}

fn assert_rising(frames: &[Frame]) {
    let seqs: Vec<Seq> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
            Frame::Error { seq, .. } => *seq,
            Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
        })
        .collect();
    assert!(seqs.is_sorted_by(|earlier, later| earlier < later), "{seqs:?}");
}

async fn item(stage: &Stage, id: &str) -> Value {
    let items = stage.items("RequestsTable").await.unwrap();
    items.into_iter().find(|item| item["client_id"] == id).unwrap()
}

fn letters(stage: &Stage) -> Vec<DeadLetter> {
    let messages = stage.queues().messages(DEAD_LETTERS).unwrap();
    messages.iter().map(|message| serde_json::from_str(&message.body).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn retry_with_a_backoff_of_five_seconds_starts_five_to_eight_seconds_later() {
    let (stage, work, mut ann) = stage().await;
    ann.request("work", "r1", json!({"failures": 2})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), 6);
    let begun = work.0.begun.lock().unwrap().clone();
    let waits: Vec<_> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 2);
    for wait in &waits {
        assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(wait), "{waits:?}");
    }
    let item = item(&stage, "r1").await;
    assert_eq!((&item["status"], &item["attempt"]), (&json!("COMPLETED"), &json!(3)));
    assert!(letters(&stage).is_empty());
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_that_fails_all_attempts_becomes_one_dead_letter_and_can_be_redriven() {
    let (stage, work, mut ann) = stage().await;
    ann.request("work", "r1", json!({"failures": u32::MAX})).await.unwrap();
    assert_eq!(ann.failure("r1").await.unwrap().code.as_str(), "BUSY");
    stage.advance(Duration::from_mins(5)).await;
    let [letter] = &letters(&stage)[..] else { panic!("{:?}", letters(&stage)) };
    assert_eq!((letter.attempts, letter.history.len(), letter.error.code.as_str()), (3, 3, "BUSY"));
    assert_eq!(work.0.runs.load(Ordering::Relaxed), 3);

    work.0.is_fixed.store(true, Ordering::Relaxed);
    let queue = DynamoRequestQueue::new(stage.dynamodb().client(), REQUESTS, QueueSettings::default());
    let redriven = redrive(&queue, letter, stage.now()).await.unwrap();
    let Redriven::New(id) = redriven else { panic!("{redriven:?}") };
    assert_eq!(redrive(&queue, letter, stage.now()).await.unwrap(), Redriven::Already(id.clone()));
    let about = json!({"request_id": id});
    ann.request("subscribe", "s1", about).await.unwrap();
    assert_eq!(ann.complete(id.as_str()).await.unwrap(), 6);
    let (old, new) = (item(&stage, "r1").await, item(&stage, id.as_str()).await);
    assert_eq!((&old["status"], &old["redriven_as"]), (&json!("FAILED"), &json!(id)));
    assert_eq!((&new["status"], &new["attempt"]), (&json!("COMPLETED"), &json!(1)));
    assert_eq!(new["redrive_of"], letter.id);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dead_letter_is_sent_after_the_dead_letter_queue_recovers() {
    let (stage, _, mut ann) = stage().await;
    let down = stage.faults().add(Fault::fail(Call::send_message()));
    ann.request("work", "r1", json!({"failures": u32::MAX})).await.unwrap();
    assert_eq!(ann.failure("r1").await.unwrap().code.as_str(), "BUSY");
    stage.advance(Duration::from_mins(3)).await;
    assert!(down.hits() > 0 && letters(&stage).is_empty());
    drop(down);
    stage.advance(Duration::from_mins(30)).await;
    assert_eq!(letters(&stage).len(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_whose_dispatch_is_lost_still_completes_within_five_minutes() {
    let (stage, work, mut ann) = stage().await;
    let lost = stage.faults().add(Fault::fail(Call::invoke(WORKER)).times(1));
    let asked = stage.now();
    ann.request("work", "r1", json!({"secs": 60})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), 60);
    assert_eq!((lost.hits(), work.0.runs.load(Ordering::Relaxed)), (1, 1));
    let took = stage.now().since(asked);
    assert!(took < Duration::from_mins(5), "{took:?}");
    assert_eq!(item(&stage, "r1").await["attempt"], 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn undelivered_terminal_frame_is_delivered_by_the_sweeper() {
    let (stage, work, mut ann) = stage().await;
    // A quick request's only frame is its response.
    let killed = stage.faults().add(Fault::kill(Call::post().by(PROCESSOR)).times(1));
    ann.request("work", "r1", json!({"secs": 0})).await.unwrap();
    assert_eq!(
        killed.hits(),
        0,
        "a quick request is answered by its response, without a post to the connection"
    );
    ann.complete("r1").await.unwrap();

    let silent = Fault::kill(Call::post().by(PROCESSOR)).after(6).times(1);
    drop(killed);
    let killed = stage.faults().add(silent);
    ann.request("work", "r2", json!({"secs": 6})).await.unwrap();
    let frames = ann.frames_until_terminal("r2").await.unwrap();
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");
    assert_rising(&frames);
    assert_eq!(killed.hits(), 1, "{frames:?}");
    let item = item(&stage, "r2").await;
    assert_eq!((&item["status"], &item["attempt"]), (&json!("COMPLETED"), &json!(1)));
    assert_eq!(work.0.runs.load(Ordering::Relaxed), 2);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_of_a_killed_processor_is_rerun_by_the_worker() {
    let (stage, work, mut ann) = stage().await;
    // The first update is the claim; the fault hits a later update.
    let write = Call::dynamodb("UpdateItem").on(REQUESTS).by(PROCESSOR);
    let killed = stage.faults().add(Fault::kill(write).after(3).times(1));
    ann.request("work", "r1", json!({"secs": 20})).await.unwrap();
    let frames = ann.frames_until_terminal("r1").await.unwrap();
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");
    assert_rising(&frames);
    assert_eq!((killed.hits(), work.0.runs.load(Ordering::Relaxed)), (1, 2));
    let item = item(&stage, "r1").await;
    assert_eq!((&item["attempt"], &item["runner"]), (&json!(2), &json!("worker")));
    let history: Value = serde_json::from_str(item["history"].as_str().unwrap()).unwrap();
    assert_eq!((&history[0]["attempt"], &history[0]["outcome"]), (&json!(1), &json!("crashed")));
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_that_kills_its_process_becomes_a_dead_letter_and_other_requests_complete() {
    let (stage, work, mut ann) = stage().await;
    work.0.functions.set(stage.functions().clone()).unwrap();
    ann.request("work", "r2", json!({"secs": 6})).await.unwrap();
    ann.request("work", "r1", json!({"secs": 9, "is_poison": true})).await.unwrap();
    assert_eq!(ann.failure("r1").await.unwrap().code.as_str(), "PROCESSING_FAILED");
    assert_eq!(ann.complete("r2").await.unwrap(), 6);
    stage.advance(Duration::from_mins(5)).await;
    let [letter] = &letters(&stage)[..] else { panic!("{:?}", letters(&stage)) };
    assert_eq!((letter.request_id.as_str(), letter.attempts, letter.history.len()), ("r1", 3, 3));
    assert!(
        item(&stage, "r2").await["attempt"].as_u64().unwrap() <= 2,
        "a request that shares its invocation with a poisonous request is rerun at most once"
    );
    stage.shutdown().await;
}
