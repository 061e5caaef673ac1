//! The cost of a request: the number of database calls, and the number of frames pushed to the client, from
//! the client's message to the terminal frame.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, handler_fn};
use streamer_harness::dynamodb::Calls;

use crate::world::World;

/// Handler that runs for the number of seconds in its input, and reports progress at even intervals.
struct Work {
    /// Number of progress reports of each attempt.
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

/// Runs one slow request that takes `seconds` seconds. Returns the database calls of the request, and the
/// number of frames pushed to the client.
async fn slow_request(seconds: u64, reports: u32) -> (Calls, usize) {
    let world = world(reports).await;
    world.ask("echo", "r0", json!(0)).await;
    let ledger = world.db.ledger();
    world.ask("work", "r1", json!(seconds)).await;
    assert_eq!(world.process().await.batch_item_failures, []);
    (ledger.take(), world.clients.frames("c-ann").len())
}

#[tokio::test(start_paused = true)]
async fn first_quick_request_of_a_connection_costs_one_read_and_later_ones_no_call() {
    let world = world(0).await;
    let ledger = world.db.ledger();
    world.ask("echo", "r1", json!("hi")).await;
    assert_snapshot!(ledger.take(), @"GetItem streamer-ConnectionsTable: 1 RCU");
    world.ask("echo", "r2", json!("hi")).await;
    world.ask("no_such_action", "r3", json!("hi")).await;
    assert_snapshot!(ledger.take(), @"no calls");
    assert_eq!(world.clients.frames("c-ann").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_request_without_progress_costs_four_writes_and_one_push() {
    let (calls, pushes) = slow_request(10, 0).await;
    assert_snapshot!(calls, @r"
    PutItem streamer-RequestsTable: 4 WCU (table 1, connection-requests 1, status-time 1, timers 1)
    2 x UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    ");
    assert_eq!(pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn running_request_without_progress_costs_one_write_per_20_seconds_and_no_extra_push() {
    let (calls, pushes) = slow_request(50, 0).await;
    assert_snapshot!(calls, @r"
    PutItem streamer-RequestsTable: 4 WCU (table 1, connection-requests 1, status-time 1, timers 1)
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    2 x UpdateItem streamer-RequestsTable: 1 WCU
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    ");
    assert_eq!(pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn each_stored_progress_report_costs_one_write_of_one_wcu_and_one_push() {
    let (calls, pushes) = slow_request(9, 3).await;
    assert_snapshot!(calls, @r"
    PutItem streamer-RequestsTable: 4 WCU (table 1, connection-requests 1, status-time 1, timers 1)
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    3 x UpdateItem streamer-RequestsTable: 1 WCU
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    ");
    assert_eq!(pushes, 4);
}

#[tokio::test(start_paused = true)]
async fn repeated_request_id_costs_one_refused_write_and_a_status_query_one_read() {
    let world = world(0).await;
    world.ask("work", "r1", json!(1)).await;
    let ledger = world.db.ledger();
    world.ask("work", "r1", json!(1)).await;
    assert_snapshot!(ledger.take(), @"PutItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException");
    world.ask("status", "r2", json!({"request_id": "r1"})).await;
    assert_snapshot!(ledger.take(), @"GetItem streamer-RequestsTable: 1 RCU");
}

#[tokio::test(start_paused = true)]
async fn subscribe_costs_one_write_before_completion_and_three_writes_and_a_push_after() {
    let world = world(0).await;
    world.connect("c-ann2", "acme", "ann").await;
    world.ask("work", "r1", json!(1)).await;
    let subscribe = json!({"action": "subscribe", "id": "s1", "payload": {"request_id": "r1"}});
    world.say("c-ann2", r#"{"action":"ping"}"#).await;
    let ledger = world.db.ledger();
    world.say("c-ann2", &subscribe).await;
    assert_snapshot!(ledger.take(), @"UpdateItem streamer-RequestsTable: 1 WCU");
    world.process().await;
    let _ = ledger.take();
    let before = world.clients.frames("c-ann2").len();
    world.say("c-ann2", &subscribe).await;
    assert_snapshot!(ledger.take(), @r"
    UpdateItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException
    2 x UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    ");
    assert_eq!(world.clients.frames("c-ann2").len() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_request_id_from_another_connection_costs_two_writes_one_of_them_refused() {
    let world = world(0).await;
    world.connect("c-ann2", "acme", "ann").await;
    world.ask("work", "r1", json!(1)).await;
    world.say("c-ann2", r#"{"action":"ping"}"#).await;
    let ledger = world.db.ledger();
    let again = json!({"action": "work", "id": "r1", "payload": 1});
    world.say("c-ann2", &again).await;
    assert_snapshot!(ledger.take(), @r"
    PutItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException
    UpdateItem streamer-RequestsTable: 1 WCU
    ");
    world.say("c-ann2", &again).await;
    assert_snapshot!(ledger.take(), @"PutItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException");
}

#[tokio::test(start_paused = true)]
async fn cancelling_an_unclaimed_or_running_request_costs_at_most_two_writes_and_a_read() {
    let world = world(0).await;
    for id in ["r1", "r2"] {
        world.ask("work", id, json!(30)).await;
    }
    let ledger = world.db.ledger();
    world.ask("cancel", "x1", json!({"request_id": "r1"})).await;
    assert_snapshot!(ledger.take(), @r"
    UpdateItem streamer-RequestsTable: 5 WCU (table 1, status-time 2, timers 2)
    UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    GetItem streamer-RequestsTable: 1 RCU
    ");
    assert_eq!(world.clients.frames("c-ann").len(), 1);
    let cancels = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let _ = ledger.take();
        world.ask("cancel", "x2", json!({"request_id": "r2"})).await;
        ledger.take()
    };
    let (_, asked) = tokio::join!(world.process(), cancels);
    assert_snapshot!(asked, @r"
    UpdateItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException
    UpdateItem streamer-RequestsTable: 1 WCU
    GetItem streamer-RequestsTable: 1 RCU
    ");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = ledger.take();
    world.ask("cancel", "x3", json!({"request_id": "r2"})).await;
    assert_snapshot!(ledger.take(), @r"
    UpdateItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException
    GetItem streamer-RequestsTable: 1 RCU
    ");
}

#[tokio::test(start_paused = true)]
async fn status_and_subscribe_do_not_read_a_large_payload() {
    let mut app = App::new();
    let echo = handler_fn(|_: Value, _| async move { Ok(1) }).estimated(Duration::from_secs(10));
    app.handle("work", echo).unwrap();
    let world = World::new(app).await;
    world.ask("work", "r1", json!("x".repeat(100_000))).await;
    let ledger = world.db.ledger();
    for action in ["status", "subscribe"] {
        world.ask(action, "s1", json!({"request_id": "r1"})).await;
    }
    assert_snapshot!(ledger.take(), @r"
    GetItem streamer-RequestsTable: 1 RCU
    UpdateItem streamer-RequestsTable: 1 WCU
    ");
}
