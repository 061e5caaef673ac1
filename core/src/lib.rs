//! Async request processing for AWS Lambda.
//!
//! Clients send requests over an API Gateway WebSocket. What is quick is answered at once; what is slow is
//! queued in DynamoDB, run from its stream, and reported on live until it ends. You write a
//! [`Handler`](handler::Handler) for each action and register it in one [`App`](app::App); each function's `main`
//! is then one line of [`lambda`].
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
//! In reading order:
//!
//! 1. What you write: an [`app`] with a [`handler`] for each action, their [`progress`], and [`middleware`] around them.
//! 2. What you deploy: [`lambda`], whose six functions are one line each.
//! 3. What goes over the wire: [`protocol`], and the names of things: [`ids`].
//! 4. What stands between Streamer and AWS, so that tests and other adapters can take its place: the [`store`], the
//!    [`connections`] to clients, [`dead_letters`], [`telemetry`], and time and chance, the [`ports`].
//!
//! The tests of an app run the whole stage in their own process: see the crate `streamer-harness`.

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

// What the six functions are made of. Public for this workspace's harness, tests and benches alone: it may change at any time.
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
