//! What becomes of requests whose work fails, and whose functions, queues and connections do.

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

/// Work that is as long as it is asked to be, and fails as often.
#[derive(Clone, Debug, Default)]
struct Work(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    begun: Mutex<Vec<Instant>>,
    is_mended: AtomicBool,
    runs: AtomicU32,
    /// Those that a poisonous request brings down.
    functions: OnceLock<Functions>,
}

#[derive(Debug, Deserialize)]
struct Order {
    #[serde(default = "six")]
    secs: u32,
    /// How many attempts fail; `u32::MAX` all, until it is mended.
    #[serde(default)]
    failures: u32,
    /// Whether it brings the processes down that run requests.
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
        if context.attempt <= order.failures && !self.0.is_mended.load(Ordering::Relaxed) {
            let busy = HandlerError::retryable("BUSY", "The source is busy");
            return Err(busy.retry_after(Duration::from_secs(5)));
        }
        for second in 1..=order.secs {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let percentage = f64::from(second) / f64::from(order.secs) * 100.0;
            context.progress.report(percentage, format!("Second {second}"))?;
            // Killing takes every environment of a function along: in the worker, once whoever runs beside it is done.
            let (function, at) = if context.attempt == 1 { (PROCESSOR, 3) } else { (WORKER, order.secs) };
            if let (true, Some(functions)) = (order.is_poison && second == at, self.0.functions.get()) {
                functions.kill(function).unwrap();
            }
        }
        Ok(order.secs)
    }
}

/// A stage whose sweeper has begun its rounds, and a client.
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
async fn a_backoff_of_five_seconds_takes_about_five() {
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
async fn what_fails_for_good_is_a_dead_letter_once_and_can_be_made_anew() {
    let (stage, work, mut ann) = stage().await;
    ann.request("work", "r1", json!({"failures": u32::MAX})).await.unwrap();
    assert_eq!(ann.failure("r1").await.unwrap().code.as_str(), "BUSY");
    stage.advance(Duration::from_mins(5)).await;
    let [letter] = &letters(&stage)[..] else { panic!("{:?}", letters(&stage)) };
    assert_eq!((letter.attempts, letter.history.len(), letter.error.code.as_str()), (3, 3, "BUSY"));
    assert_eq!(work.0.runs.load(Ordering::Relaxed), 3);

    work.0.is_mended.store(true, Ordering::Relaxed);
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
async fn a_dead_letter_that_its_queue_does_not_take_is_sent_later() {
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
async fn a_hand_over_that_is_lost_is_brought_back() {
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
async fn an_end_that_was_written_and_not_told_is_told_by_the_sweeper() {
    let (stage, work, mut ann) = stage().await;
    // The first frame of work that reports nothing is the last.
    let killed = stage.faults().add(Fault::kill(Call::post().by(PROCESSOR)).times(1));
    ann.request("work", "r1", json!({"secs": 0})).await.unwrap();
    assert_eq!(killed.hits(), 0, "it takes no time: it is answered at once");
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
async fn a_request_whose_process_died_is_rerun_by_the_worker() {
    let (stage, work, mut ann) = stage().await;
    // The first is the claim.
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
async fn a_request_that_brings_its_process_down_each_time_ends_as_a_dead_letter_and_its_neighbour_right() {
    let (stage, work, mut ann) = stage().await;
    work.0.functions.set(stage.functions().clone()).unwrap();
    ann.request("work", "r2", json!({"secs": 6})).await.unwrap();
    ann.request("work", "r1", json!({"secs": 9, "is_poison": true})).await.unwrap();
    assert_eq!(ann.failure("r1").await.unwrap().code.as_str(), "PROCESSING_FAILED");
    assert_eq!(ann.complete("r2").await.unwrap(), 6);
    stage.advance(Duration::from_mins(5)).await;
    let [letter] = &letters(&stage)[..] else { panic!("{:?}", letters(&stage)) };
    assert_eq!((letter.request_id.as_str(), letter.attempts, letter.history.len()), ("r1", 3, 3));
    assert!(item(&stage, "r2").await["attempt"].as_u64().unwrap() <= 2, "each is rerun alone");
    stage.shutdown().await;
}
