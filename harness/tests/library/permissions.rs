//! What the template's policies permit: of each table and queue, of the worker, and of the management API, what a function
//! does there, and no more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::auth::{Algorithm, TokenVerifier};
use streamer::connections::SendErrorKind;
use streamer::functions::Connect;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::middleware::{Rate, RateLimit};
use streamer::store::dynamodb::DynamoRateLimits;
use streamer_harness::dynamodb::Calls;
use streamer_harness::signing_key::{SigningKey, TokenFor};
use tokio::time::{advance, sleep};

use crate::connections::{disconnect, ended};
use crate::world::{RATE_LIMITS, World, message};

/// An action on a table, an index, a function or a queue, as in `PutItem RequestsTable`, or on connections:
/// `ManageConnections POST`.
type Permissions = BTreeSet<String>;

const RESOURCES: [&str; 6] = [
    "RequestsTable",
    "ConnectionsTable",
    "RateLimitsTable",
    "WorkerFunction",
    "DeadLetterQueue",
    "StreamFailureQueue",
];

/// What the policies of a function permit.
fn permitted(function: &str) -> Permissions {
    let template = include_str!("../../../lambdas/template.yaml");
    let (_, rest) = template.split_once(&format!("\n  {function}:\n")).unwrap();
    // The next resource begins where the indentation is that of this one.
    let end = rest.match_indices("\n  ").map(|(at, _)| at).find(|at| !rest[at + 3..].starts_with([' ', '#']));
    let mut permitted = Permissions::new();
    let mut actions = Vec::new();
    for line in rest[..end.unwrap_or(rest.len())].lines() {
        if line.trim_start().starts_with("Action: ") {
            let services = ["dynamodb:", "execute-api:", "lambda:", "sqs:"];
            actions = services.iter().flat_map(|service| line.split(service).skip(1)).map(word).collect();
        } else if let Some((_, resource)) = line.split_once("Resource: ")
            && let Some(table) = RESOURCES.into_iter().find(|table| resource.contains(table))
        {
            let index =
                resource.split_once("/index/").map(|(_, index)| format!("/{index}")).unwrap_or_default();
            permitted.extend(actions.iter().map(|action| format!("{action} {table}{index}")));
        } else if let Some((path, _)) = line.split_once("/@connections/") {
            let method = path.rsplit('/').next().unwrap_or_default();
            permitted.extend(actions.iter().map(|action| format!("{action} {method}")));
        }
    }
    permitted
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// What calls must be permitted. A transaction must be permitted each of its writes: of the puts it is the one sign here.
fn needed(calls: &Calls) -> Permissions {
    let mut needed = Permissions::new();
    for call in calls.iter() {
        let action = if call.operation == "TransactWriteItems" { "PutItem" } else { &call.operation };
        let is_query = action == "Query";
        for charge in call.charges.iter().filter(|charge| is_query || charge.index.is_none()) {
            let table = charge.table.trim_start_matches("streamer-");
            let index = charge.index.as_ref().map(|index| format!("/{index}")).unwrap_or_default();
            needed.insert(format!("{action} {table}{index}"));
        }
    }
    needed
}

/// Has a checkpoint and a result that do not fit beside their request, unless it fails.
struct Large;

#[derive(Deserialize)]
struct Order {
    is_long: bool,
    fails: bool,
}

impl Handler for Large {
    type Input = Order;
    type Output = String;

    fn estimated_duration(&self, order: &Order) -> Duration {
        if order.is_long { Duration::from_mins(1) } else { Duration::from_secs(10) }
    }

    async fn process(&self, order: Order, context: Context) -> Result<String, HandlerError> {
        sleep(Duration::from_secs(30)).await;
        context.progress.report(50.0, "Half")?;
        let large = "x".repeat(10_000);
        context.progress.checkpoint(&large).await?;
        if order.fails { Err(HandlerError::failure("PRINTER_JAM", "out of paper")) } else { Ok(large) }
    }
}

/// What a function has done since `before`, beyond its calls of DynamoDB.
struct Beyond {
    frames: usize,
    letters: usize,
    dispatched: usize,
}

impl Beyond {
    fn of(world: &World) -> Self {
        let frames = world.clients.frames("c-ann").len();
        Self { frames, letters: world.letters.sent().len(), dispatched: world.dispatched.keys().len() }
    }

    fn needed_since(&self, before: &Self) -> Permissions {
        let done = [
            // A push is a POST, and nobody asks the management API for anything else.
            (self.frames > before.frames, "ManageConnections POST"),
            (self.letters > before.letters, "SendMessage DeadLetterQueue"),
            (self.dispatched > before.dispatched, "InvokeFunction WorkerFunction"),
        ];
        done.into_iter().filter(|(done, _)| *done).map(|(_, permission)| permission.to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_function_may_do_what_it_does_and_no_more() {
    let mut app = App::new();
    app.handle("large", Large).unwrap().layer(RateLimit::per_user(Rate::per_second(100)).shared("all"));
    let mut world = World::new(app).await;
    world.router.set_rate_limits(DynamoRateLimits::new(world.db.client(), RATE_LIMITS));
    let ledger = world.db.ledger();
    let mut done = Vec::new();

    let key = SigningKey::generate().unwrap();
    let verifier = TokenVerifier::new(Algorithm::EdDsa, &key.public_key_pem()).unwrap();
    let connect = Connect::new(verifier, world.connections(), Arc::new(world.clock));
    let whom = TokenFor {
        user: "eve".into(),
        tenant: "acme".into(),
        permissions: vec![],
        ttl: Duration::from_hours(1),
    };
    let mut event = message("c-eve", Value::Null, false);
    event.query_string_parameters = [("token".to_owned(), vec![key.sign(&whom, world.now())])]
        .into_iter()
        .collect::<std::collections::HashMap<_, _>>()
        .into();
    let opened = connect.answer(&event, world.now() + Duration::from_secs(10)).await;
    assert_eq!(opened.status_code, 200);
    done.push(("ConnectFunction", needed(&ledger.take())));

    let mut before = Beyond::of(&world);
    for (id, is_long, fails, filling) in [
        ("r1", false, false, 1),
        ("r2", false, true, 10_000),
        ("r3", true, false, 1),
        ("r4", true, true, 10_000),
        ("r5", true, true, 1),
    ] {
        let order = json!({"is_long": is_long, "fails": fails, "filling": "x".repeat(filling)});
        world.ask("large", id, order).await;
        world.ask("status", "s", json!({"request_id": id})).await;
        world.ask("subscribe", "s", json!({"request_id": id})).await;
        advance(Duration::from_secs(70)).await;
    }
    world.ask("cancel", "c", json!({"request_id": "r5"})).await;
    world.ask("ping", "p", json!({})).await;
    let mut note = |function: &'static str, world: &World, calls: &Calls| {
        let now = Beyond::of(world);
        let mut needed = needed(calls);
        needed.extend(now.needed_since(&before));
        before = now;
        done.push((function, needed));
    };
    note("RouterFunction", &world, &ledger.take());

    world.process_for(Duration::from_mins(15)).await;
    note("ProcessorFunction", &world, &ledger.take());

    for key in world.dispatched.keys() {
        world.work(key).await;
    }
    note("WorkerFunction", &world, &ledger.take());

    // What a worker could neither tell the client nor write to the queue.
    world.ask("large", "r6", json!({"is_long": true, "fails": true})).await;
    world.clients.fail("c-ann", SendErrorKind::Unavailable);
    world.letters.fail_times(u32::MAX);
    world.work(crate::world::key("r6")).await;
    world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 0);
    world.letters.fail_times(0);
    let _ = ledger.take();
    world.sweeper().sweep(world.now() + Duration::from_secs(75)).await;
    note("SweeperFunction", &world, &ledger.take());

    world.ask("large", "left", json!({"is_long": true, "fails": false})).await;
    let disconnect = disconnect(&world).cancelling(true);
    let _ = ledger.take();
    disconnect.answer(&ended("c-ann"), world.now() + Duration::from_secs(10)).await;
    done.push(("DisconnectFunction", needed(&ledger.take())));

    for (function, mut needed) in done {
        if function == "ProcessorFunction" {
            // What its event source mapping gives up on, that sends in its name.
            needed.insert("SendMessage StreamFailureQueue".to_owned());
        }
        assert!(!needed.is_empty(), "{function} does something");
        assert_eq!(permitted(function), needed, "{function}: permitted, and needed");
    }
}
