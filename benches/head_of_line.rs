//! Benchmark of head-of-line blocking: the time that a short request waits for its handler to start, when one
//! request in a hundred takes ten minutes.
//!
//! In the first run, the processor dispatches long requests to the worker. In the second run, the processor
//! runs all requests itself, and the few long requests occupy the concurrent batches of the stream's shards.
//! The stage runs in process, on virtual time. The figures are the same on every machine, so there is nothing
//! to sample.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer_harness::client::Client;
use streamer_harness::lambda::CapturedLog;
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::Stage;
use tokio::time::{Instant, timeout_at};

/// Number of requests in each run.
const REQUESTS: u32 = 1_000;
/// One request in this many is long.
const LONG_EVERY: u32 = 100;
/// Time that the handler of a long request takes.
const LONG: Duration = Duration::from_mins(10);
/// Time that the handler of a short request takes.
const SHORT: Duration = Duration::from_millis(200);
/// Time between the sends of two consecutive requests.
const PACE: Duration = Duration::from_millis(100);

/// Handler that sleeps for the duration of its request, and records how long each short request waited.
#[derive(Clone, Debug)]
struct Work {
    /// Waiting times of the short requests, in the order of their starts.
    waits: Arc<Mutex<Vec<Duration>>>,
    /// Start of the run, from which `sent_ms` is counted.
    epoch: Instant,
}

#[derive(Debug, Deserialize)]
struct Order {
    /// Time at which the request was sent, in milliseconds from the start of the run.
    sent_ms: u64,
    is_long: bool,
}

impl Order {
    const fn duration(&self) -> Duration {
        if self.is_long { LONG } else { SHORT }
    }
}

impl Handler for Work {
    type Input = Order;
    type Output = ();

    fn estimated_duration(&self, order: &Order) -> Duration {
        order.duration()
    }

    async fn process(&self, order: Order, _: Context) -> Result<(), HandlerError> {
        if !order.is_long {
            let waited = self.epoch.elapsed().saturating_sub(Duration::from_millis(order.sent_ms));
            self.waits.lock().expect("no thread panics while it holds the lock").push(waited);
        }
        tokio::time::sleep(order.duration()).await;
        Ok(())
    }
}

/// Runs the requests on a stage whose processor dispatches requests above `inline_limit_ms` to the worker.
/// Returns the waiting times of all short requests, sorted.
async fn waits(inline_limit_ms: &str) -> Vec<Duration> {
    let work = Work { waits: Arc::default(), epoch: Instant::now() };
    let mut app = App::new();
    app.handle("work", work.clone()).expect("the action work is registered once");
    let stage = Stage::builder()
        .app(app)
        // With a threshold of 0, every request is queued.
        .variable("ASYNC_THRESHOLD_MS", "0")
        .variable("INLINE_LIMIT_MS", inline_limit_ms)
        .log(Arc::new(CapturedLog::new()))
        .start()
        .await
        .expect("the stage starts");
    let mut client = stage.connect(&TokenFor::new("ann", "acme")).await.expect("the client connects");
    for n in 0..REQUESTS {
        let sent_ms =
            u64::try_from(work.epoch.elapsed().as_millis()).expect("the elapsed milliseconds fit into u64");
        let order = json!({"sent_ms": sent_ms, "is_long": n % LONG_EVERY == LONG_EVERY / 2});
        client.request("work", &format!("r{n}"), order).await.expect("the request is sent");
        read_until(&mut client, Instant::now() + PACE).await;
    }
    let short_requests = usize::try_from(REQUESTS - REQUESTS / LONG_EVERY).expect("u32 fits into usize");
    while work.waits.lock().expect("no thread panics while it holds the lock").len() < short_requests {
        read_until(&mut client, Instant::now() + Duration::from_secs(10)).await;
    }
    stage.shutdown().await;
    let mut waits = work.waits.lock().expect("no thread panics while it holds the lock").clone();
    waits.sort();
    waits
}

/// Reads and discards frames until the time `until`, because unread frames would queue up and make the client
/// slow.
async fn read_until(client: &mut Client, until: Instant) {
    while let Ok(frame) = timeout_at(until, client.next_text()).await {
        frame.expect("the connection stays open");
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

fn main() {
    let run = |inline_limit_ms: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let waits = runtime.expect("tokio starts a runtime").block_on(waits(inline_limit_ms));
        [50, 99, 100].map(|percent| percentile(&waits, percent))
    };
    let report = |name: &str, [p50, p99, max]: [Duration; 3]| {
        println!(
            "{name}: p50 {:.3} s, p99 {:.3} s, max {:.3} s",
            p50.as_secs_f64(),
            p99.as_secs_f64(),
            max.as_secs_f64()
        );
    };
    println!(
        "waiting time of short requests ({REQUESTS} requests at {} per second, 1 in {LONG_EVERY} takes {} min)",
        1_000 / PACE.as_millis(),
        LONG.as_secs() / 60
    );
    let (with, without) = (run("30000"), run("870000"));
    report("with the worker    ", with);
    report("without the worker ", without);
    println!(
        "p99 without the worker / with the worker: {:.0}",
        without[1].as_secs_f64() / with[1].as_secs_f64()
    );
    // Time is virtual, so these figures never vary.
    assert!(with[2] < Duration::from_secs(1), "with the worker, no short request waits for a long request");
    assert!(without[1] > LONG / 2, "without the worker, short requests wait for long requests");
}
