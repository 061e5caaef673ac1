//! Async request processing for AWS Lambda.
//!
//! Clients send requests over an API Gateway WebSocket. Streamer answers a quick request immediately. It stores a
//! slow request in DynamoDB, runs it from the table's stream, and pushes its progress and result to the client. A
//! slow request survives crashes, retries, closed connections and Lambda's time limit.
//!
//! You write a [`Handler`](handler::Handler) for each action, and register the handlers in one [`App`](app::App). The
//! simplest handler is an async function:
//!
//! ```
//! use serde_json::Value;
//! use streamer::app::{App, RegisterError};
//! use streamer::handler::HandlerError;
//!
//! async fn echo(message: Value) -> Result<Value, HandlerError> {
//!     Ok(message)
//! }
//!
//! fn app() -> Result<App, RegisterError> {
//!     let mut app = App::new();
//!     app.handle("echo", echo)?;
//!     Ok(app)
//! }
//! # app().unwrap();
//! ```
//!
//! The `main` of each Lambda function is then one call, such as `streamer::lambda::router(app()?)`.
//!
//! # Where to read next
//!
//! 1. The code you write: an [`app`] with a [`handler`] for each action, their [`progress`] reports, and the
//!    [`middleware`] around the handlers.
//! 2. The functions you deploy: [`lambda`] has one entry point for each of the six functions, and lists their
//!    environment variables.
//! 3. The messages and frames on the WebSocket: [`protocol`]. The types of all ids: [`ids`].
//! 4. The interfaces to AWS, which a test can replace with its own implementations: the [`store`], the [`connections`] to
//!    clients, [`dead_letters`], [`telemetry`], and the [`ports`] for time and randomness.
//!
//! To test an app, use the crate `streamer-harness`, which runs all functions and tables in the test's own process.

pub mod app;
pub mod handler;
pub mod progress;

pub mod middleware;

pub mod lambda;

pub mod ids;
pub use streamer_protocol as protocol;

pub mod connections;
pub mod dead_letters;
pub mod ports;
pub mod store;
pub mod telemetry;
pub use service_error::ServiceError;

// Building blocks of the six Lambda functions. These modules are public only for this workspace's harness, tests and
// benches, and may change at any time.
#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod aws;
#[cfg(feature = "seeded-bugs")]
#[doc(hidden)]
pub mod bugs;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod executor;
#[doc(hidden)]
pub mod functions;
#[doc(hidden)]
pub mod lifecycle;
#[doc(hidden)]
pub mod processor;
#[doc(hidden)]
pub mod router;
#[doc(hidden)]
pub mod sweeper;
#[doc(hidden)]
pub mod worker;

#[cfg(not(feature = "seeded-bugs"))]
mod bugs;
mod deadline;
mod delivery;
mod service_error;
