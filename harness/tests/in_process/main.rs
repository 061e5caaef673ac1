//! Tests of a stage in process, as a user's own tests run it: functions, gateway, database and streams
//! without a socket, on the test's clock.

#![expect(clippy::unwrap_used, reason = "test helpers may panic, as tests do")]

mod building;
mod clients;
mod clock;
mod environments;
mod faults;
mod hours;
mod recovery;
mod requests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::{Stage, StageBuilder};

/// Prints one page per second. Requests for more than five pages are slow requests, which are queued.
#[derive(Debug)]
struct Print;

#[derive(Debug, Deserialize)]
struct Order {
    pages: u32,
}

#[derive(Debug, Serialize)]
struct Printed {
    pages: u32,
    for_user: String,
}

impl Handler for Print {
    type Input = Order;
    type Output = Printed;

    fn required_permission(&self) -> Option<&str> {
        Some("print")
    }

    fn estimated_duration(&self, order: &Order) -> Duration {
        Duration::from_secs(1) * order.pages
    }

    async fn process(&self, order: Order, context: Context) -> Result<Printed, HandlerError> {
        for page in 1..=order.pages {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let percentage = f64::from(page) / f64::from(order.pages) * 100.0;
            context.progress.report(percentage, format!("Page {page}"))?;
        }
        Ok(Printed { pages: order.pages, for_user: context.user.to_string() })
    }
}

async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

fn app() -> App {
    let mut app = App::new();
    app.handle("echo", echo).unwrap().handle("print", Print).unwrap();
    app
}

fn builder() -> StageBuilder {
    Stage::builder().app(app())
}

async fn stage() -> Stage {
    builder().start().await.unwrap()
}

fn ann() -> TokenFor {
    TokenFor::new("ann", "acme").with_permissions(["print"])
}

fn bob() -> TokenFor {
    TokenFor::new("bob", "acme").with_permissions(["print"])
}
