//! Head-of-line blocking: how long a quick request waits until somebody runs it, where one in a hundred takes ten minutes.
//!
//! With the worker, the processor hands over what takes long; without it, it runs all by itself, and the few long ones fill
//! the lanes of the stream's shards. All of it is on virtual time, in a stage in process: the figures are the stage's own
//! and come out alike on any machine, so there is nothing to sample.

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

const REQUESTS: u32 = 1_000;
/// One of so many takes long.
const LONG_EVERY: u32 = 100;
const LONG: Duration = Duration::from_mins(10);
const QUICK: Duration = Duration::from_millis(200);
/// Between two requests.
const PACE: Duration = Duration::from_millis(100);

/// How long the quick ones have waited.
#[derive(Clone, Debug)]
struct Work {
    waits: Arc<Mutex<Vec<Duration>>>,
    epoch: Instant,
}

#[derive(Debug, Deserialize)]
struct Order {
    sent_ms: u64,
    is_long: bool,
}

impl Order {
    const fn length(&self) -> Duration {
        if self.is_long { LONG } else { QUICK }
    }
}

impl Handler for Work {
    type Input = Order;
    type Output = ();

    fn estimated_duration(&self, order: &Order) -> Duration {
        order.length()
    }

    async fn process(&self, order: Order, _: Context) -> Result<(), HandlerError> {
        if !order.is_long {
            let waited = self.epoch.elapsed().saturating_sub(Duration::from_millis(order.sent_ms));
            self.waits.lock().expect("nobody panics with it").push(waited);
        }
        tokio::time::sleep(order.length()).await;
        Ok(())
    }
}

/// The waits of all quick requests, sorted, on a stage whose processor runs what takes so long at most.
async fn waits(inline_limit_ms: &str) -> Vec<Duration> {
    let work = Work { waits: Arc::default(), epoch: Instant::now() };
    let mut app = App::new();
    app.handle("work", work.clone()).expect("no such action yet");
    let stage = Stage::builder()
        .app(app)
        // All are queued.
        .variable("ASYNC_THRESHOLD_MS", "0")
        .variable("INLINE_LIMIT_MS", inline_limit_ms)
        .log(Arc::new(CapturedLog::new()))
        .start()
        .await
        .expect("a stage");
    let mut client = stage.connect(&TokenFor::new("ann", "acme")).await.expect("a connection");
    for n in 0..REQUESTS {
        let sent_ms = u64::try_from(work.epoch.elapsed().as_millis()).expect("minutes");
        let order = json!({"sent_ms": sent_ms, "is_long": n % LONG_EVERY == LONG_EVERY / 2});
        client.request("work", &format!("r{n}"), order).await.expect("it is sent");
        read_until(&mut client, Instant::now() + PACE).await;
    }
    let quick = usize::try_from(REQUESTS - REQUESTS / LONG_EVERY).expect("it fits");
    while work.waits.lock().expect("nobody panics with it").len() < quick {
        read_until(&mut client, Instant::now() + Duration::from_secs(10)).await;
    }
    stage.shutdown().await;
    let mut waits = work.waits.lock().expect("nobody panics with it").clone();
    waits.sort();
    waits
}

/// Whoever does not read is slow, and holds up its own frames.
async fn read_until(client: &mut Client, until: Instant) {
    while let Ok(frame) = timeout_at(until, client.next_text()).await {
        frame.expect("the connection lasts");
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

fn main() {
    let run = |inline_limit_ms: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let waits = runtime.expect("a runtime").block_on(waits(inline_limit_ms));
        [50, 99, 100].map(|percent| percentile(&waits, percent))
    };
    let report = |name: &str, [p50, p99, most]: [Duration; 3]| {
        println!(
            "{name}: p50 {:.3} s, p99 {:.3} s, most {:.3} s",
            p50.as_secs_f64(),
            p99.as_secs_f64(),
            most.as_secs_f64()
        );
    };
    println!(
        "queueing delay of quick requests ({REQUESTS} at {} a second, 1 in {LONG_EVERY} takes {} min)",
        1_000 / PACE.as_millis(),
        LONG.as_secs() / 60
    );
    let (with, without) = (run("30000"), run("870000"));
    report("with the worker    ", with);
    report("without the worker ", without);
    println!("p99 without / with: {:.0}", without[1].as_secs_f64() / with[1].as_secs_f64());
    // Time is virtual: these are facts, not measurements.
    assert!(with[2] < Duration::from_secs(1), "nobody quick waits for anybody long");
    assert!(without[1] > LONG / 2, "else the long ones were not in the way, and this shows nothing");
}
