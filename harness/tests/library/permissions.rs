//! What the template's policies permit: of each table, and of the management API, what a function does there, and no
//! more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::auth::{Algorithm, TokenVerifier};
use streamer::functions::Connect;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::middleware::{Rate, RateLimit};
use streamer::store::dynamodb::DynamoRateLimits;
use streamer_harness::dynamodb::Calls;
use streamer_harness::signing_key::{SigningKey, TokenFor};
use tokio::time::{advance, sleep};

use crate::connections::{disconnect, ended};
use crate::world::{RATE_LIMITS, World, message};

/// An action on a table or an index, as in `PutItem RequestsTable`, or on connections: `ManageConnections POST`.
type Permissions = BTreeSet<String>;

/// What the policies of a function permit on tables and connections.
fn permitted(function: &str) -> Permissions {
    let template = include_str!("../../../lambdas/template.yaml");
    let (_, rest) = template.split_once(&format!("\n  {function}:\n")).unwrap();
    // The next resource begins where the indentation is that of this one.
    let end = rest.match_indices("\n  ").map(|(at, _)| at).find(|at| !rest[at + 3..].starts_with([' ', '#']));
    let mut permitted = Permissions::new();
    let mut actions = Vec::new();
    for line in rest[..end.unwrap_or(rest.len())].lines() {
        if line.trim_start().starts_with("Action: ") {
            let services = ["dynamodb:", "execute-api:"];
            actions = services.iter().flat_map(|service| line.split(service).skip(1)).map(word).collect();
        } else if let Some((_, resource)) = line.split_once("Resource: ")
            && let Some(table) = ["RequestsTable", "ConnectionsTable", "RateLimitsTable"]
                .into_iter()
                .find(|table| resource.contains(table))
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

/// What calls must be permitted. A transaction must be permitted each of its writes, which are puts here.
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

/// Returns more than fits beside its request.
struct Large;

impl Handler for Large {
    type Input = Value;
    type Output = String;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_mins(1)
    }

    async fn process(&self, _: Value, context: Context) -> Result<String, HandlerError> {
        sleep(Duration::from_secs(30)).await;
        context.progress.report(50.0, "Half")?;
        Ok("x".repeat(10_000))
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
    let connect = Connect::new(verifier, world.connections(), Arc::new(world.clock.clone()));
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
    let opened = connect.handle(&event, world.now() + Duration::from_secs(10)).await;
    assert_eq!(opened.status_code, 200);
    done.push(("ConnectFunction", needed(&ledger.take())));

    for payload in [json!(1), json!("x".repeat(10_000))] {
        let id = format!("r{}", payload.to_string().len());
        world.ask("large", &id, payload).await;
        world.ask("status", "s", json!({"request_id": id})).await;
        advance(Duration::from_secs(70)).await;
    }
    world.ask("ping", "p", json!({})).await;
    done.push(("RouterFunction", needed(&ledger.take())));

    world.process().await;
    let mut run = needed(&ledger.take());
    // A push is a POST, and the processor asks the management API nothing else.
    if !world.clients.frames("c-ann").is_empty() {
        run.insert("ManageConnections POST".to_owned());
    }
    done.push(("ProcessorFunction", run));

    world.ask("large", "left", json!(1)).await;
    let disconnect = disconnect(&world).cancelling(true);
    let _ = ledger.take();
    disconnect.handle(&ended("c-ann"), world.now() + Duration::from_secs(10)).await;
    done.push(("DisconnectFunction", needed(&ledger.take())));

    for (function, needed) in done {
        assert!(!needed.is_empty(), "{function} does something");
        assert_eq!(permitted(function), needed, "{function}: permitted, and needed");
    }
}
