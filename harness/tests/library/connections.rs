//! The `$disconnect` event and its effect on requests, and the last-activity times of connections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::functions::Disconnect;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::ports::Timestamp;
use streamer::protocol::Frame;
use streamer::router::Router;
use streamer::store::dynamodb::{DynamoConnectionStore, DynamoRequestQueue};
use streamer::store::{ClaimRequests as _, Connection, ConnectionStore as _, Runner, Status};
use streamer::telemetry::{MetricLine, MetricSink};
use tokio::runtime::Handle;
use tokio::time::{advance, sleep};

use crate::flaky::{client_without_answers_to, queue_with_concurrent_write};
use crate::world::{CONNECTIONS, REQUESTS, World, key, message, queue};

/// Start time of each test, on the clock of the test's world.
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Handler that runs for the number of seconds in its input, and reports progress after each second.
struct Steps;

impl Handler for Steps {
    type Input = u32;
    type Output = u32;

    fn estimated_duration(&self, seconds: &u32) -> Duration {
        Duration::from_secs((*seconds).into())
    }

    async fn process(&self, seconds: u32, context: Context) -> Result<u32, HandlerError> {
        for n in 1..=seconds {
            sleep(Duration::from_secs(1)).await;
            context.progress.report(f64::from(n) / f64::from(seconds) * 100.0, "Working")?;
        }
        Ok(seconds)
    }
}

/// Metric sink that keeps all written metric lines as JSON values.
#[derive(Debug, Default)]
struct Metrics(Mutex<Vec<Value>>);

impl MetricSink for Metrics {
    fn write(&self, line: &MetricLine) {
        self.0.lock().unwrap().push(serde_json::from_str(&line.to_json()).unwrap());
    }
}

/// A world and a disconnect function on the world's tables.
struct Bench {
    world: World,
    metrics: Arc<Metrics>,
    disconnect: Disconnect<DynamoConnectionStore, DynamoRequestQueue>,
}

impl Bench {
    async fn new() -> Self {
        let mut app = App::new();
        app.handle("steps", Steps).unwrap();
        let world = World::new(app).await;
        let metrics = Arc::new(Metrics::default());
        let clock = Arc::new(world.clock);
        let disconnect = Disconnect::new(world.connections(), queue(&world.db), clock, metrics.clone());
        Self { world, metrics, disconnect }
    }

    /// Creates a bench whose disconnect function cancels requests that have no subscriber left.
    async fn cancelling() -> Self {
        let bench = Self::new().await;
        Self { disconnect: bench.disconnect.cancelling(true), ..bench }
    }

    async fn queue(&self, id: &str, seconds: u32) {
        let ack = self.world.ask("steps", id, json!(seconds)).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    /// Passes the gateway's `$disconnect` event of the connection to the disconnect function.
    async fn close(&self, connection: &str) {
        self.disconnect
            .answer(&disconnect_event(connection), self.world.now() + Duration::from_secs(10))
            .await;
    }

    /// Returns two metrics of the last `$disconnect` event: the number of removed subscriptions, and the number
    /// of cancelled requests.
    fn counted(&self) -> (u64, u64) {
        let lines = self.metrics.0.lock().unwrap();
        let count = |name: &str| lines.last().unwrap()[name].as_u64().unwrap();
        (count("SubscriptionsRemoved"), count("RequestsCancelled"))
    }

    async fn has_timer(&self, id: &str) -> bool {
        self.world.item(id).await.contains_key("timer_at")
    }
}

/// Returns a disconnect function on the world's tables. No test reads its metrics.
pub(crate) fn disconnect(world: &World) -> Disconnect<DynamoConnectionStore, DynamoRequestQueue> {
    let (clock, metrics) = (Arc::new(world.clock), Arc::new(Metrics::default()));
    Disconnect::new(world.connections(), queue(&world.db), clock, metrics)
}

/// Returns the gateway's `$disconnect` event of a connection.
pub(crate) fn disconnect_event(connection: &str) -> ApiGatewayWebsocketProxyRequest {
    let event = json!({
        "headers": {}, "multiValueHeaders": {}, "isBase64Encoded": false,
        "requestContext": {
            "routeKey": "$disconnect", "eventType": "DISCONNECT", "messageDirection": "IN", "stage": "prod",
            "disconnectStatusCode": 1001, "disconnectReason": "Going away", "connectionId": connection,
            "connectedAt": 1_700_000_000_000_u64, "requestTimeEpoch": 1_700_000_001_000_u64,
            "requestId": "Jk1q-FQ1oAMFYtg=", "identity": {"sourceIp": "127.0.0.1"}, "apiId": "abcdefghij",
        },
    });
    serde_json::from_value(event).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_disconnected_client_continue_without_a_subscriber() {
    let bench = Bench::new().await;
    bench.queue("r1", 10).await;
    let closes = async {
        sleep(Duration::from_millis(3_500)).await;
        bench.close("c-ann").await;
        bench.world.clients.frames("c-ann").len()
    };
    let (_, received) = tokio::join!(bench.world.process(), closes);
    assert_eq!(bench.counted(), (1, 0));
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    // The attempt stores a report at most a second after the disconnect. The write returns the remaining
    // subscribers, so that at most one more frame is pushed to the closed connection.
    assert!(bench.world.clients.frames("c-ann").len() <= received + 1);
    assert!(!bench.has_timer("r1").await, "a request without subscribers has no timer after completion");
    assert_eq!(bench.world.connections().get(&"c-ann".into()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn disconnect_with_cancelling_enabled_cancels_running_and_pending_requests() {
    let bench = Bench::cancelling().await;
    bench.queue("r1", 60).await;
    let running = bench.world.process();
    let closes = async {
        sleep(Duration::from_millis(3_500)).await;
        bench.queue("r2", 60).await;
        bench.close("c-ann").await;
        assert_eq!(bench.world.request("r2").await.status, Status::Cancelled);
        bench.world.now()
    };
    let (_, ended_at) = tokio::join!(running, closes);
    assert_eq!(bench.counted(), (2, 2));
    let request = bench.world.request("r1").await;
    assert_eq!(request.status, Status::Cancelled);
    // The attempt reads the cancel request when it stores its next report, at most 1 s after the disconnect. The
    // handler receives the stop signal at its next report, at most 1 s after that write.
    assert!(request.finished_at.unwrap().since(ended_at) <= Duration::from_millis(2_100));
    for id in ["r1", "r2"] {
        assert!(!bench.has_timer(id).await, "{id}: a cancelled request without subscribers has no timer");
    }
    assert!(!bench.world.clients.frames("c-ann").iter().any(Frame::is_terminal));
}

#[tokio::test(start_paused = true)]
async fn disconnect_does_not_cancel_a_request_with_another_subscriber() {
    let bench = Bench::cancelling().await;
    bench.queue("r1", 10).await;
    bench.world.subscribe("r1", "again").await;
    bench.close("c-ann").await;
    assert_eq!(bench.counted(), (1, 0));
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(bench.world.clients.frames("again").last().is_some_and(Frame::is_terminal));
    assert_eq!(bench.world.clients.frames("c-ann"), []);
}

/// Another connection subscribes after the disconnect function has read the request, and before the function
/// writes to the request.
#[tokio::test(start_paused = true)]
async fn disconnect_does_not_cancel_a_request_that_concurrently_gains_a_subscriber() {
    let bench = Bench::cancelling().await;
    let (world, now) = (&bench.world, bench.world.now());
    for id in ["waits", "runs"] {
        bench.queue(id, 60).await;
    }
    let lease_end = now + Duration::from_secs(60);
    queue(&world.db).claim(&key("runs"), "worker", Runner::Worker, now, lease_end).await.unwrap();
    let db = world.db.clone();
    let subscribe = move || {
        for id in ["waits", "runs"] {
            let update = json!({
                "TableName": REQUESTS,
                "Key": {"request_id": {"S": key(id).as_str()}, "part": {"S": "request"}},
                "UpdateExpression": "SET subscribers.again = :value",
                "ExpressionAttributeValues": {":value": {"N": "1"}},
            });
            let answer = db.handle("DynamoDB_20120810.UpdateItem", update.to_string().as_bytes());
            assert_eq!(answer.status, 200);
        }
    };
    let racing = queue_with_concurrent_write(&world.db, "BatchGetItem", subscribe);
    let (clock, metrics) = (Arc::new(world.clock), bench.metrics.clone());
    let disconnect = Disconnect::new(world.connections(), racing, clock, metrics).cancelling(true);
    disconnect.answer(&disconnect_event("c-ann"), now + Duration::from_secs(10)).await;
    assert_eq!(bench.counted(), (2, 0));
    for (id, status) in [("waits", Status::Pending), ("runs", Status::Processing)] {
        let request = world.request(id).await;
        assert_eq!((request.status, request.subscribers), (status, vec!["again".into()]));
        assert!(!world.item(id).await.contains_key("cancel_requested"), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_writes_to_a_terminal_request_only_if_it_is_undelivered() {
    let bench = Bench::cancelling().await;
    bench.queue("delivered", 6).await;
    bench.world.process().await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("undelivered", 6).await;
    bench.world.process().await;
    assert!(bench.has_timer("undelivered").await, "an undelivered request is in the timer index");
    let (delivered, ledger) = (bench.world.item("delivered").await, bench.world.db.ledger());
    bench.close("c-ann").await;
    let calls = ledger.take();
    assert_eq!(bench.counted(), (1, 0));
    assert_eq!(bench.world.item("delivered").await, delivered);
    assert!(!bench.has_timer("undelivered").await, "the last subscriber's disconnect clears the timer");
    assert_eq!(bench.world.request("undelivered").await.status, Status::Completed);
    insta::assert_snapshot!(calls, @r"
    DeleteItem streamer-ConnectionsTable: 3 WCU (table 1, tenant-connections 1, user-connections 1)
    Query streamer-RequestsTable/connection-requests: 0.5 RCU
    BatchGetItem streamer-RequestsTable: 2 RCU
    UpdateItem streamer-RequestsTable: 1 WCU -> ConditionalCheckFailedException
    UpdateItem streamer-RequestsTable: 2 WCU (table 1, timers 1)
    ");
}

#[tokio::test(start_paused = true)]
async fn disconnect_unsubscribes_the_connection_from_all_of_its_130_requests() {
    let bench = Bench::new().await;
    for n in 0..130 {
        bench.queue(&format!("r{n}"), 60).await;
    }
    bench.close("c-ann").await;
    assert_eq!(bench.counted(), (130, 0));
    for n in 0..130 {
        assert_eq!(bench.world.request(&format!("r{n}")).await.subscribers, []);
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_or_unrelated_disconnect_event_changes_no_request() {
    let bench = Bench::cancelling().await;
    bench.queue("r1", 10).await;
    let item = bench.world.item("r1").await;
    bench.close("c-eve").await;
    bench.close("c-bob").await;
    assert_eq!((bench.world.item("r1").await, bench.counted()), (item, (0, 0)));
    bench.close("c-ann").await;
    let cancelled = bench.world.item("r1").await;
    bench.close("c-ann").await;
    assert_eq!((bench.world.item("r1").await, bench.counted()), (cancelled, (0, 0)));
}

/// API Gateway does not guarantee the `$disconnect` event. If the event is missing, the first push that gets
/// 410 Gone removes the subscriber.
#[tokio::test(start_paused = true)]
async fn push_to_a_gone_connection_removes_the_connection_from_the_request() {
    let bench = Bench::new().await;
    bench.queue("r1", 10).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Gone);
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.subscribers, []);
    assert!(!bench.has_timer("r1").await);
}

/// `delete_stale` deletes the items of connections without recent activity. DynamoDB deletes an item when its
/// time to live has passed.
#[tokio::test(start_paused = true)]
async fn connection_without_a_disconnect_event_is_deleted_once_stale_or_expired() {
    let bench = Bench::new().await;
    let (world, store) = (&bench.world, bench.world.connections());
    advance(Duration::from_mins(100)).await;
    world.connect("c-new", "acme", "ann").await;
    store.update_last_ping(&"c-bob".into(), world.now()).await.unwrap();
    advance(Connection::STALE_AFTER - Duration::from_mins(100) + Duration::from_secs(1)).await;
    let stale = u64::try_from(Connection::STALE_AFTER.as_millis()).unwrap();
    let before = Timestamp::from_millis(world.now().as_millis() - stale);
    assert_eq!(store.delete_stale(before).await.unwrap(), 1);
    assert_eq!(
        store.get(&"c-ann".into()).await.unwrap(),
        None,
        "a connection without activity for more than 130 minutes is deleted"
    );
    assert!(store.get(&"c-bob".into()).await.unwrap().is_some(), "a connection with recent activity is kept");

    advance(Duration::from_hours(24)).await;
    world.db.sweep_expired().unwrap();
    for connection in ["c-bob", "c-new"] {
        assert_eq!(store.get(&connection.into()).await.unwrap(), None, "{connection}");
    }
}

/// Returns the time from the opening of ann's connection to its stored last activity (`last_ping`).
async fn last_ping(world: &World) -> Duration {
    let connection = world.connections().get(&"c-ann".into()).await.unwrap().unwrap();
    connection.last_ping.since(connection.connected_at)
}

#[tokio::test(start_paused = true)]
async fn last_activity_time_of_a_connection_is_updated_at_most_once_a_minute() {
    let bench = Bench::new().await;
    let (world, ledger) = (&bench.world, bench.world.db.ledger());
    let ping = r#"{"action":"ping","id":"p"}"#;
    let mut calls = Vec::new();
    for second in [0, 30, 59, 61, 90, 120, 122] {
        let elapsed = world.now().since(START);
        advance(Duration::from_secs(second) - elapsed).await;
        assert!(world.say("c-ann", ping).await.contains("pong"));
        calls.push(format!("{second} s: {}", ledger.take()));
    }
    insta::assert_snapshot!(calls.join("\n"));
    assert_eq!(last_ping(world).await.as_secs(), 122);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_message_updates_the_last_activity_time_of_its_connection() {
    let bench = Bench::new().await;
    for (n, body) in [
        r#"{"action":"steps","id":"quick","payload":0}"#,
        r#"{"action":"steps","id":"slow","payload":10}"#,
        r#"{"action":"status","id":"s","payload":{"request_id":"slow"}}"#,
        r#"{"action":"fly","id":"unknown"}"#,
        r#"{"action":"steps","id":"invalid","payload":"soon"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        advance(Duration::from_secs(70)).await;
        bench.world.say("c-ann", body).await;
        let now = bench.world.now();
        let stored = last_ping(&bench.world).await;
        assert_eq!(stored, now.since(START), "message {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_update_of_the_last_activity_time_does_not_affect_the_answer() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let ping = r#"{"action":"ping","id":"p"}"#;
    world.say("c-ann", ping).await;
    advance(Duration::from_secs(70)).await;
    world.db.client().delete_table().table_name(CONNECTIONS).send().await.unwrap();
    let asked = world.now();
    assert!(world.say("c-ann", ping).await.contains("pong"));
    assert_eq!(world.now(), asked);
    advance(Duration::from_secs(30)).await;
    assert!(world.say("c-ann", ping).await.contains("pong"));
}

#[tokio::test(start_paused = true)]
async fn hanging_update_of_the_last_activity_time_delays_the_answer_by_at_most_a_second() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let connections =
        DynamoConnectionStore::new(client_without_answers_to(&world.db, "UpdateItem"), CONNECTIONS);
    let (app, clock) = (Arc::clone(&world.app), Arc::new(world.clock));
    let router =
        Router::new(app, connections, queue(&world.db), world.clients.clone(), clock, Handle::current());
    let mut waited = Vec::new();
    let quick = |seconds| json!(json!({"action": "steps", "id": "q", "payload": seconds}).to_string());
    for (after, takes, has) in [(0, 0, 60), (60, 0, 60), (0, 0, 60), (60, 3, 60), (60, 0, 1)] {
        advance(Duration::from_secs(after)).await;
        let asked = tokio::time::Instant::now();
        let deadline = world.now() + Duration::from_secs(has);
        let answer = router.route_before(&message("c-ann", quick(takes), false), deadline).await;
        assert!(answer.contains("\"success\":true"), "{answer}");
        waited.push(asked.elapsed().as_millis());
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            0,
            "no task that updates the last-activity time is left running"
        );
    }
    assert_eq!(waited, [0, 1_000, 0, 3_000, 500]);
}

#[tokio::test(start_paused = true)]
async fn failed_activity_update_of_a_deleted_connection_evicts_it_from_the_routers_cache() {
    let bench = Bench::new().await;
    let (world, ping) = (&bench.world, r#"{"action":"ping","id":"p"}"#);
    world.say("c-ann", ping).await;
    world.disconnect("c-ann").await;
    advance(Duration::from_secs(59)).await;
    assert!(
        world.say("c-ann", ping).await.contains("pong"),
        "the router answers a deleted connection that is still in its cache"
    );
    advance(Duration::from_secs(1)).await;
    assert!(
        world.say("c-ann", ping).await.contains("pong"),
        "the failed update of the last-activity time does not affect the answer"
    );
    assert!(world.say("c-ann", ping).await.contains("UNAUTHORIZED"));
    assert_eq!(
        world.connections().get(&"c-ann".into()).await.unwrap(),
        None,
        "the update of the last-activity time does not recreate the connection"
    );
}

#[tokio::test(start_paused = true)]
async fn quick_request_whose_handler_is_too_slow_gets_a_timeout_error_before_the_deadline() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let message = message("c-ann", json!(r#"{"action":"steps","id":"r1","payload":4}"#), false);
    let asked = tokio::time::Instant::now();
    let answer = world.router.route_before(&message, world.now() + Duration::from_secs(3)).await;
    assert_eq!(asked.elapsed(), Duration::from_millis(2_500));
    assert!(answer.contains("\"TIMEOUT\"") && answer.contains("longer than 2 s"), "{answer}");
}
