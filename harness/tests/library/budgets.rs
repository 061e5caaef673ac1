//! What a request costs, from its message to its end: each call to the database, and each push to a client.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, handler_fn};
use streamer_harness::dynamodb::Calls;

use crate::world::World;

/// Works for as many seconds as it is asked to, and reports that often while it does.
struct Work {
    reports: u32,
}

impl Handler for Work {
    type Input = u64;
    type Output = u64;

    fn estimated_duration(&self, _: &u64) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, seconds: u64, context: Context) -> Result<u64, HandlerError> {
        for n in 1..=self.reports {
            context.progress.report(f64::from(n), "Working")?;
            tokio::time::sleep(Duration::from_secs(seconds) / self.reports).await;
        }
        if self.reports == 0 {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Ok(seconds)
    }
}

async fn world(reports: u32) -> World {
    let mut app = App::new();
    app.handle("echo", handler_fn(|message: Value, _| async move { Ok(message) }))
        .unwrap()
        .handle("work", Work { reports })
        .unwrap();
    World::new(app).await
}

/// The calls of a slow request that takes so many seconds, and how often its client was pushed to.
async fn slow_request(seconds: u64, reports: u32) -> (Calls, usize) {
    let world = world(reports).await;
    world.ask("echo", "r0", json!(0)).await;
    let ledger = world.db.ledger();
    world.ask("work", "r1", json!(seconds)).await;
    assert_eq!(world.process().await.batch_item_failures, []);
    (ledger.take(), world.clients.frames("c-ann").len())
}

#[tokio::test(start_paused = true)]
async fn a_quick_request_costs_one_read_the_first_time_and_then_no_call() {
    let world = world(0).await;
    let ledger = world.db.ledger();
    world.ask("echo", "r1", json!("hi")).await;
    assert_snapshot!(ledger.take());
    world.ask("echo", "r2", json!("hi")).await;
    world.ask("no_such_action", "r3", json!("hi")).await;
    assert_snapshot!(ledger.take(), @"no calls");
    assert_eq!(world.clients.frames("c-ann").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_progress_costs_four_writes_and_one_push() {
    let (calls, pushes) = slow_request(10, 0).await;
    assert_snapshot!(calls);
    assert_eq!(pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn each_20_silent_seconds_cost_one_write_more_and_no_push() {
    let (calls, pushes) = slow_request(50, 0).await;
    assert_snapshot!(calls);
    assert_eq!(pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn each_stored_report_costs_one_write_of_one_unit_and_one_push() {
    let (calls, pushes) = slow_request(9, 3).await;
    assert_snapshot!(calls);
    assert_eq!(pushes, 4);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_costs_one_refused_write() {
    let world = world(0).await;
    world.ask("work", "r1", json!(1)).await;
    let ledger = world.db.ledger();
    world.ask("work", "r1", json!(1)).await;
    assert_snapshot!(ledger.take());
    world.ask("status", "r2", json!({"request_id": "r1"})).await;
    assert_snapshot!(ledger.take());
}
