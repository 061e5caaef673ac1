use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::HandlerError;
use streamer::middleware::{Rate, RateLimit};
use streamer::ports::Timestamp;
use streamer::router::Router;
use streamer::store::dynamodb::{DynamoConnectionStore, DynamoRateLimits, DynamoRequestQueue};
use streamer::store::{FullAt, RateLimits, StoreError, StoreErrorKind, Taken};
use tokio::runtime::Builder;
use tokio::time::advance;

use crate::world::{Clients, RATE_LIMITS, World, message};

async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

/// Returns an app that has the action `echo` and the rate limit `limit`, which applies to every action.
fn limited(limit: RateLimit) -> App {
    let mut app = App::new();
    app.handle("echo", echo).unwrap().layer(limit);
    app
}

/// Message that calls the action `echo`.
const ECHO: &str = r#"{"action":"echo","id":"r1"}"#;

/// Returns the router of a separate Lambda environment, which keeps shared rate limits in the store `limits`.
async fn environment(
    world: &World,
    app: App,
    limits: impl RateLimits + 'static,
) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
    let mut router = world.router_of(app);
    router.set_rate_limits(limits);
    // This message makes the router cache ann's identity. No layer runs, because the action `fly` has no handler.
    router.route(&message("c-ann", json!(r#"{"action":"fly","id":"f"}"#), false)).await;
    router
}

/// Routes the message [`ECHO`] from `connection` through `router` and returns the answer.
async fn say(
    router: &Router<DynamoConnectionStore, DynamoRequestQueue, Clients>,
    connection: &str,
) -> String {
    router.route(&message(connection, json!(ECHO), false)).await
}

/// Sends the message [`ECHO`] `calls` times over `connection`, to each router in turn. Returns the number of
/// successful answers.
async fn granted(
    routers: &[&Router<DynamoConnectionStore, DynamoRequestQueue, Clients>],
    connection: &str,
    calls: usize,
) -> usize {
    let mut granted = 0;
    for call in 0..calls {
        granted +=
            usize::from(say(routers[call % routers.len()], connection).await.contains("\"success\":true"));
    }
    granted
}

#[tokio::test(start_paused = true)]
async fn call_above_its_connections_rate_limit_is_refused_with_the_time_to_wait() {
    let world = World::new(limited(RateLimit::per_connection(Rate::per_second(10).with_burst(3)))).await;
    for _ in 0..3 {
        assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
    }
    assert_snapshot!(world.say("c-ann", ECHO).await, @r#"{"type":"error","request_id":"r1","error":{"code":"RATE_LIMITED","message":"Too many requests: try again in 100 ms","details":{"retry_after_ms":100}},"timestamp":1700000000}"#);
    assert!(world.say("c-bob", ECHO).await.contains("\"success\":true"), "each connection has its own limit");
    advance(Duration::from_millis(99)).await;
    assert!(world.say("c-ann", ECHO).await.contains("\"retry_after_ms\":1}"));
    advance(Duration::from_millis(1)).await;
    assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
}

#[tokio::test(start_paused = true)]
async fn rate_limit_per_user_spans_all_connections_of_the_user_but_not_other_tenants() {
    let world = World::new(limited(RateLimit::per_user(Rate::per_minute(2)))).await;
    world.connect_as("c-ann-2", "ann", "acme").await;
    world.connect_as("c-other", "ann", "other").await;
    assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
    assert!(world.say("c-ann-2", ECHO).await.contains("\"success\":true"));
    for connection in ["c-ann", "c-ann-2"] {
        assert!(world.say(connection, ECHO).await.contains("RATE_LIMITED"));
    }
    assert!(world.say("c-other", ECHO).await.contains("\"success\":true"));
}

#[tokio::test(start_paused = true)]
async fn built_in_actions_count_toward_the_rate_limit_and_refused_calls_skip_dynamodb() {
    let world = World::new(limited(RateLimit::per_user(Rate::per_minute(2)))).await;
    let status = json!({"action": "status", "id": "s1", "payload": {"request_id": "r9"}});
    assert!(world.say("c-ann", &status).await.contains("NOT_FOUND"));
    assert!(world.say("c-ann", &status).await.contains("NOT_FOUND"));
    let ledger = world.db.ledger();
    assert!(world.say("c-ann", &status).await.contains("RATE_LIMITED"));
    assert!(world.say("c-ann", r#"{"action":"ping","id":"p1"}"#).await.contains("RATE_LIMITED"));
    assert_snapshot!(ledger.take(), @"no calls");
}

#[tokio::test(start_paused = true)]
async fn rate_limit_counts_a_queued_request_once_when_queued_and_not_when_it_runs() {
    struct Slow;

    impl streamer::handler::Handler for Slow {
        type Input = Value;
        type Output = Value;

        fn estimated_duration(&self, _: &Value) -> Duration {
            Duration::from_mins(1)
        }

        async fn process(&self, input: Value, _: streamer::handler::Context) -> Result<Value, HandlerError> {
            Ok(input)
        }
    }

    let limit = RateLimit::per_user(Rate::per_minute(2));
    let mut app = App::new();
    // A clone of a `RateLimit` shares the buckets of the original.
    app.handle_with("slow", Slow, limit.clone()).unwrap().handle_with("echo", echo, limit).unwrap();
    let world = World::new(app).await;
    world.ask("slow", "r1", json!(1)).await;
    assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
    assert!(world.say("c-ann", ECHO).await.contains("RATE_LIMITED"));
    world.process().await;
    assert_eq!(world.clients.frames("c-ann").len(), 1, "the queued request's terminal frame is pushed");
}

#[tokio::test(start_paused = true)]
async fn environments_share_a_rate_limit_and_skip_dynamodb_after_reading_an_empty_bucket() {
    let world = World::new(App::new()).await;
    let app = || limited(RateLimit::per_user(Rate::per_second(1).with_burst(5)).shared("messages"));
    let limits = || DynamoRateLimits::new(world.db.client(), RATE_LIMITS);
    let (one, other) =
        (environment(&world, app(), limits()).await, environment(&world, app(), limits()).await);
    let ledger = world.db.ledger();
    assert!(say(&one, "c-ann").await.contains("\"success\":true"));
    assert_snapshot!(ledger.take(), @"UpdateItem streamer-RateLimitsTable: 1 WCU");
    assert!(say(&one, "c-ann").await.contains("\"success\":true"));
    assert_snapshot!(ledger.take(), @"UpdateItem streamer-RateLimitsTable: 1 WCU");
    // The second environment has not read the bucket yet and assumes that the bucket is full. Its first write
    // therefore fails, and its second write uses the stored state.
    assert!(say(&other, "c-ann").await.contains("\"success\":true"));
    assert_snapshot!(ledger.take(), @r"
    UpdateItem streamer-RateLimitsTable: 1 WCU -> ConditionalCheckFailedException
    UpdateItem streamer-RateLimitsTable: 1 WCU
    ");
    assert_eq!(
        granted(&[&one, &other], "c-ann", 10).await,
        2,
        "two more calls are granted after the first three, because the burst is five"
    );
    let _ = ledger.take();
    assert_eq!(granted(&[&one, &other], "c-ann", 1_000).await, 0);
    assert_snapshot!(ledger.take(), @"no calls");

    advance(Duration::from_secs(2)).await;
    assert_eq!(granted(&[&one, &other], "c-ann", 100).await, 2, "one token is added per second");
    advance(Duration::from_mins(30)).await;
    assert_eq!(
        granted(&[&other, &one], "c-ann", 100).await,
        5,
        "the bucket holds no more than the burst of five after half an hour without a call"
    );
    assert_eq!(granted(&[&one], "c-bob", 100).await, 5, "each user has a separate bucket");
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_receive_no_more_tokens_than_the_rate_limit_bucket_contains() {
    let world = World::new(App::new()).await;
    let limits = DynamoRateLimits::new(world.db.client(), RATE_LIMITS);
    let rate = Rate::per_minute(60).with_burst(7);
    let takes = (0..40).map(|_| limits.take("b", rate, Timestamp::from_secs(1_000), FullAt::default()));
    let taken = futures_util::future::join_all(takes).await;
    let granted = taken.iter().filter(|taken| matches!(taken, Ok(Taken::Granted(_)))).count();
    assert_eq!(granted, 7, "{taken:?}");
    let full = FullAt::from_micros(1_007_000_000);
    assert!(
        taken.iter().all(|taken| matches!(taken, Ok(Taken::Granted(_)))
            || *taken.as_ref().unwrap() == Taken::Refused(full))
    );
}

#[tokio::test(start_paused = true)]
async fn stored_rate_limit_bucket_has_a_name_the_time_at_which_it_is_full_and_a_ttl() {
    let world = World::new(App::new()).await;
    let limits = DynamoRateLimits::new(world.db.client(), RATE_LIMITS);
    let (rate, now) = (Rate::per_second(2).with_burst(10), Timestamp::from_millis(1_000_250));
    assert_eq!(
        limits.take("messages/user/acme/ann", rate, now, FullAt::default()).await.unwrap(),
        Taken::Granted(FullAt::from_micros(1_000_750_000))
    );
    let key = AttributeValue::S("messages/user/acme/ann".into());
    let found = world.db.client().get_item().table_name(RATE_LIMITS).key("bucket", key).send().await.unwrap();
    let item: std::collections::BTreeMap<_, _> = found.item.unwrap().into_iter().collect();
    assert_snapshot!(
        format!("{item:?}"),
        @r#"{"bucket": S("messages/user/acme/ann"), "full_at": N("1000750000"), "ttl": N("1065")}"#
    );
}

/// Rate-limit store on which every call fails or hangs.
#[derive(Clone, Default)]
struct Failing {
    /// True if calls of the store never return. If false, they fail.
    hangs: bool,
    /// True if calls of the store fail as throttled. If false, they fail as unavailable.
    throttles: bool,
    /// Thread of each call of the store, in the order of the calls.
    called_on: Arc<Mutex<Vec<ThreadId>>>,
}

impl RateLimits for Failing {
    async fn take(&self, _: &str, _: Rate, _: Timestamp, _: FullAt) -> Result<Taken, StoreError> {
        self.called_on.lock().unwrap().push(thread::current().id());
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let kind = if self.throttles { StoreErrorKind::Throttled } else { StoreErrorKind::Unavailable };
        Err(StoreError::new(kind, "a fault injected by the test"))
    }
}

#[tokio::test(start_paused = true)]
async fn shared_rate_limit_with_a_failing_table_counts_locally_unless_it_is_fail_closed() {
    let world = World::new(App::new()).await;
    let limit = || RateLimit::per_user(Rate::per_minute(2)).shared("messages");
    for hangs in [false, true] {
        let failing = Failing { hangs, ..Failing::default() };
        let open = environment(&world, limited(limit()), failing.clone()).await;
        assert_eq!(granted(&[&open], "c-ann", 10).await, 2);
        let closed = environment(&world, limited(limit().fail_closed()), failing).await;
        let started = tokio::time::Instant::now();
        let answer = say(&closed, "c-ann").await;
        assert!(answer.contains("RATE_LIMITED") && answer.contains("\"retry_after_ms\":1000"), "{answer}");
        assert_eq!(
            started.elapsed(),
            Duration::from_secs(u64::from(hangs)),
            "the router waits a second for a hanging table and not at all for a failing table"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn call_is_refused_if_dynamodb_throttles_its_rate_limit_bucket() {
    let world = World::new(App::new()).await;
    let limit = RateLimit::per_user(Rate::per_second(10)).shared("messages");
    let throttled = Failing { throttles: true, ..Failing::default() };
    let router = environment(&world, limited(limit), throttled).await;
    let answer = say(&router, "c-ann").await;
    assert!(answer.contains("RATE_LIMITED") && answer.contains("\"retry_after_ms\":1000"), "{answer}");
}

#[tokio::test]
async fn rate_limit_table_is_called_on_the_routers_runtime_not_the_handlers_runtime() {
    let handlers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = World::new(App::new()).await;
    let failing = Failing::default();
    let app = limited(RateLimit::per_user(Rate::per_minute(2)).shared("messages"));
    let mut router = world.router_with(app, handlers.handle().clone());
    router.set_rate_limits(failing.clone());
    assert!(say(&router, "c-ann").await.contains("\"success\":true"));
    assert_eq!(*failing.called_on.lock().unwrap(), [thread::current().id()]);
    handlers.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn shared_rate_limit_without_a_table_counts_locally_unless_it_is_fail_closed() {
    let limit = RateLimit::per_user(Rate::per_minute(2)).shared("messages");
    let world = World::new(limited(limit.clone())).await;
    assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
    assert!(world.say("c-ann", ECHO).await.contains("\"success\":true"));
    assert!(world.say("c-ann", ECHO).await.contains("RATE_LIMITED"));

    let closed = World::new(limited(limit.fail_closed())).await;
    for _ in 0..2 {
        let answer = closed.say("c-bob", ECHO).await;
        assert!(answer.contains("RATE_LIMITED") && answer.contains("\"retry_after_ms\":1000"), "{answer}");
    }
}
