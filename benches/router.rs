//! Benchmark of the router: the time from an event with a client's message to the reply frame.
//!
//! The sender's identity is cached, as for every message except the first one of a connection. Handlers run on
//! a separate runtime, as in the deployed function. Only `queued` calls a service: it writes to the in-process
//! DynamoDB fake. `unknown_action` and `rate_limited` measure the cost of each message in a flood from a
//! hostile client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::{Connections, SendError};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::ids::ConnectionId;
use streamer::middleware::{Call, Next, Rate, RateLimit, RequirePermission, from_fn, when_processing};
use streamer::ports::{Clock as _, SystemClock};
use streamer::router::Router;
use streamer::store::dynamodb::{DynamoConnectionStore, DynamoRequestQueue, QueueSettings};
use streamer::store::{Connection, ConnectionStore as _, Identity};
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::stage::create_tables;
use streamer_harness::template::{Environment, Template};
use tokio::runtime::{Builder, Runtime};

const CONNECTIONS: &str = "streamer-ConnectionsTable";
const REQUESTS: &str = "streamer-RequestsTable";
const CONNECTION: &str = "L0SM9cOFvHcCIhw=";

criterion_group!(benches, router);
criterion_main!(benches);

fn router(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("tokio starts a runtime");
    let handlers =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio starts a runtime");
    let plain = runtime.block_on(Stage::new(app(), &handlers));
    let layered = runtime.block_on(Stage::new(layered(), &handlers));
    let limited = runtime.block_on(Stage::new(limited(), &handlers));
    let mut group = criterion.benchmark_group("router");
    group.throughput(Throughput::Elements(1));
    for (name, stage, action, answer) in [
        ("quick_echo", &plain, "echo", r#""success":true"#),
        ("quick_echo_through_five_layers", &layered, "echo", r#""success":true"#),
        ("queued", &plain, "report", r#""status":"queued""#),
        ("unknown_action", &plain, "fly", r#""INVALID_ACTION""#),
        ("rate_limited", &limited, "echo", r#""RATE_LIMITED""#),
    ] {
        group.bench_function(name, |bencher| stage.bench(bencher, &runtime, action, answer));
    }
    group.finish();
}

async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

/// A handler whose estimate is above the router's threshold, so that its requests are always queued.
struct Report;

impl Handler for Report {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_mins(1)
    }

    async fn process(&self, input: Value, _: Context) -> Result<Value, HandlerError> {
        Ok(input)
    }
}

fn app() -> App {
    let mut app = App::new();
    app.handle("echo", echo)
        .and_then(|app| app.handle("report", Report))
        .expect("each action is registered once, and neither is a built-in action");
    app
}

/// Returns the application with five middleware layers, all of which let every message through.
fn layered() -> App {
    let mut app = app();
    app.layer(from_fn(async |call: Call, next: Next| next.run(call).await))
        .layer(RequirePermission::new("reports"))
        .layer(when_processing(RequirePermission::new("reports")))
        .layer(RateLimit::per_user(Rate::per_second(u32::MAX)))
        .layer(RateLimit::per_connection(Rate::per_second(u32::MAX)));
    app
}

/// Returns the application with a rate limit of one message per hour.
fn limited() -> App {
    let mut app = app();
    app.layer(RateLimit::per_user(Rate::new(1, Duration::from_hours(1))));
    app
}

/// Stub of the connections port, which panics if the router pushes a frame. The router pushes frames only for
/// subscriptions to finished requests, and this bench sends no subscription.
struct NoConnections;

impl Connections for NoConnections {
    async fn send(&self, _: &ConnectionId, frame: &str) -> Result<(), SendError> {
        unreachable!("the router pushes no frame in this bench, but pushed {frame}")
    }
}

struct Stage {
    router: Router<DynamoConnectionStore, DynamoRequestQueue, NoConnections>,
    /// Number of messages so far, which makes each request id unique. A message with a repeated id would
    /// refer to the earlier request.
    messages: AtomicUsize,
}

impl Stage {
    /// Creates a router on the deployed tables, and one connection. The connection has already sent a
    /// message, so the router has cached the sender's identity.
    async fn new(app: App, handlers: &Runtime) -> Self {
        let dynamodb = DynamoDb::builder().in_memory().expect("the in-memory database opens");
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
        let mut environment = Environment::default();
        environment.parameters.insert("JwtKey".to_owned(), "not used here".to_owned());
        let tables = Template::load(&template, &environment).expect("the deployed template is valid").tables;
        create_tables(&dynamodb, &tables).expect("the database creates the tables");
        let connections = DynamoConnectionStore::new(dynamodb.client(), CONNECTIONS);
        connections.save(&connection()).await.expect("the database stores the connection");
        let queue = DynamoRequestQueue::new(dynamodb.client(), REQUESTS, QueueSettings::default());
        let clock = Arc::new(SystemClock);
        let router =
            Router::new(Arc::new(app), connections, queue, NoConnections, clock, handlers.handle().clone());
        let stage = Self { router, messages: AtomicUsize::new(0) };
        let first = stage.router.route(&stage.message("echo")).await;
        assert!(first.contains(r#""success":true"#), "{first}");
        stage
    }

    fn bench(&self, bencher: &mut criterion::Bencher<'_>, runtime: &Runtime, action: &str, answer: &str) {
        let message = || self.message(action);
        bencher.to_async(runtime).iter_batched(
            message,
            |message| async move {
                let frame = self.router.route(&message).await;
                assert!(frame.contains(answer), "{frame}");
                frame
            },
            criterion::BatchSize::SmallInput,
        );
    }

    fn message(&self, action: &str) -> ApiGatewayWebsocketProxyRequest {
        let id = self.messages.fetch_add(1, Ordering::Relaxed);
        let payload =
            json!({"customer": "c-1042", "lines": [{"article": "a-7", "quantity": 3}], "express": true});
        let body = json!({"action": action, "id": format!("r-{id}"), "payload": payload}).to_string();
        let event = json!({
            "requestContext": {
                "routeKey": "$default", "messageId": "Jk1q_crWoAMCJyA=", "eventType": "MESSAGE",
                "extendedRequestId": "Jk1q-FQ1oAMFYtg=", "requestTime": "23/Nov/2026:19:27:48 +0000",
                "messageDirection": "IN", "stage": "prod", "connectedAt": 1_700_000_000_000_u64,
                "requestTimeEpoch": SystemClock.now().as_millis(), "identity": {"sourceIp": "127.0.0.1"},
                "requestId": "Jk1q-FQ1oAMFYtg=", "domainName": "abcdefghij.execute-api.us-east-1.amazonaws.com",
                "connectionId": CONNECTION, "apiId": "abcdefghij",
            },
            "body": body, "isBase64Encoded": false,
        });
        serde_json::from_value(event).expect("the event has the shape of API Gateway's events")
    }
}

fn connection() -> Connection {
    let now = SystemClock.now();
    Connection {
        id: CONNECTION.into(),
        identity: Identity {
            user: "ann".into(),
            tenant: "acme".into(),
            permissions: vec!["reports".into()],
            expires_at: now + Duration::from_hours(2),
        },
        endpoint: "https://api.example/prod".into(),
        connected_at: now,
        last_ping: now,
        metadata: BTreeMap::new(),
    }
}
