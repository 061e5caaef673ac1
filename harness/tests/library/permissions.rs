//! Test that the template's IAM policies grant each function exactly the permissions that the function uses. The
//! permissions cover tables, queues, invocations of the worker, and calls of the gateway's management API.

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

use crate::connections::{disconnect, disconnect_event};
use crate::world::{RATE_LIMITS, World, message};

/// Set of IAM permissions. Each is an action and its resource, such as `PutItem RequestsTable` or
/// `Query RequestsTable/timers`. For the management API, the HTTP method is the resource:
/// `ManageConnections POST`.
type Permissions = BTreeSet<String>;

/// Logical ids of the resources to which the template's policies grant access.
const RESOURCES: [&str; 6] = [
    "RequestsTable",
    "ConnectionsTable",
    "RateLimitsTable",
    "WorkerFunction",
    "DeadLetterQueue",
    "StreamFailureQueue",
];

/// Returns the permissions that the template grants to the function with the logical id `function`.
fn permitted(function: &str) -> Permissions {
    let template = include_str!("../../../lambdas/template.yaml");
    let (_, rest) = template.split_once(&format!("\n  {function}:\n")).unwrap();
    // The function's section of the template ends before the next line that is indented by only two spaces.
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

/// Returns the alphanumeric characters at the start of `text`.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// Returns the permissions that `calls` need. IAM checks each write of a transaction separately. All transactions
/// in this test consist of puts, so `TransactWriteItems` needs `PutItem`.
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

/// Handler whose checkpoint and result are too large for the request's item. If the payload's field `fails` is
/// true, the handler fails instead of returning the result.
struct Large;

/// Payload of a request for the handler [`Large`].
#[derive(Deserialize)]
struct Order {
    /// True if the handler estimates a duration so long that the worker runs the request. If false, the processor
    /// runs the request.
    is_long: bool,
    /// True if the handler fails after it has saved its checkpoint.
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

/// Counts of the calls that the functions have made to services other than DynamoDB.
struct NonDynamoCalls {
    /// Number of frames that the functions have pushed to ann's connection.
    frames: usize,
    /// Number of dead letters that the functions have sent to the dead-letter queue.
    letters: usize,
    /// Number of requests that the functions have dispatched to the worker.
    dispatched: usize,
}

impl NonDynamoCalls {
    /// Counts the calls to services other than DynamoDB that the functions of `world` have made so far.
    fn of(world: &World) -> Self {
        let frames = world.clients.frames("c-ann").len();
        Self { frames, letters: world.letters.sent().len(), dispatched: world.dispatched.keys().len() }
    }

    /// Returns the permissions that the calls counted in `self`, but not yet in `before`, needed.
    fn needed_since(&self, before: &Self) -> Permissions {
        let calls = [
            // The functions call the management API only to push frames, and each push is a POST.
            (self.frames > before.frames, "ManageConnections POST"),
            (self.letters > before.letters, "SendMessage DeadLetterQueue"),
            (self.dispatched > before.dispatched, "InvokeFunction WorkerFunction"),
        ];
        calls.into_iter().filter(|(made, _)| *made).map(|(_, permission)| permission.to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn template_grants_each_function_exactly_the_permissions_that_the_function_uses() {
    let mut app = App::new();
    app.handle("large", Large).unwrap().layer(RateLimit::per_user(Rate::per_second(100)).shared("all"));
    let mut world = World::new(app).await;
    world.router.set_rate_limits(DynamoRateLimits::new(world.db.client(), RATE_LIMITS));
    let ledger = world.db.ledger();
    let mut needed_by_function = Vec::new();

    let key = SigningKey::generate().unwrap();
    let verifier = TokenVerifier::new(Algorithm::EdDsa, &key.public_key_pem()).unwrap();
    let connect = Connect::new(verifier, world.connections(), Arc::new(world.clock));
    let token = TokenFor {
        user: "eve".into(),
        tenant: "acme".into(),
        permissions: vec![],
        ttl: Duration::from_hours(1),
    };
    let mut event = message("c-eve", Value::Null, false);
    event.query_string_parameters = [("token".to_owned(), vec![key.sign(&token, world.now())])]
        .into_iter()
        .collect::<std::collections::HashMap<_, _>>()
        .into();
    let answer = connect.answer(&event, world.now() + Duration::from_secs(10)).await;
    assert_eq!(answer.status_code, 200, "the connect event is accepted");
    needed_by_function.push(("ConnectFunction", needed(&ledger.take())));

    let mut before = NonDynamoCalls::of(&world);
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
    let mut record = |function: &'static str, world: &World, calls: &Calls| {
        let now = NonDynamoCalls::of(world);
        let mut needed = needed(calls);
        needed.extend(now.needed_since(&before));
        before = now;
        needed_by_function.push((function, needed));
    };
    record("RouterFunction", &world, &ledger.take());

    world.process_for(Duration::from_mins(15)).await;
    record("ProcessorFunction", &world, &ledger.take());

    for key in world.dispatched.keys() {
        world.work(key).await;
    }
    record("WorkerFunction", &world, &ledger.take());

    // The worker fails to push the terminal frame and to send the dead letter, so that the sweeper must push the
    // frame and send the letter.
    world.ask("large", "r6", json!({"is_long": true, "fails": true})).await;
    world.clients.fail("c-ann", SendErrorKind::Unavailable);
    world.letters.fail_times(u32::MAX);
    world.work(crate::world::key("r6")).await;
    world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 0);
    world.letters.fail_times(0);
    let _ = ledger.take();
    world.sweeper().sweep(world.now() + Duration::from_secs(75)).await;
    record("SweeperFunction", &world, &ledger.take());

    world.ask("large", "left", json!({"is_long": true, "fails": false})).await;
    let disconnect = disconnect(&world).cancelling(true);
    let _ = ledger.take();
    disconnect.answer(&disconnect_event("c-ann"), world.now() + Duration::from_secs(10)).await;
    needed_by_function.push(("DisconnectFunction", needed(&ledger.take())));

    for (function, mut needed) in needed_by_function {
        if function == "ProcessorFunction" {
            // The event source mapping uses the processor's role to send each record that it stops retrying to
            // `StreamFailureQueue`.
            needed.insert("SendMessage StreamFailureQueue".to_owned());
        }
        assert!(!needed.is_empty(), "the test makes {function} call at least one service");
        assert_eq!(
            permitted(function),
            needed,
            "{function}: permissions granted by the template (left) and needed (right)"
        );
    }
}
