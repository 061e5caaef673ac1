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
//! 1. What users write: [`app`], [`handler`], [`progress`], [`middleware`].
//! 2. What goes over the wire: [`protocol`], and the names of things: [`ids`].
//! 3. What happens to a request: [`lifecycle`] decides it; [`router`], [`processor`], [`worker`] and [`sweeper`]
//!    carry it out, and [`dead_letters`] take what has failed for good.
//! 4. Where it is kept: [`store`], and how clients are reached: [`connections`].
//! 5. Who may connect: [`auth`].
//! 6. What the functions are made of: [`functions`], [`lambda`], [`config`], [`aws`], [`telemetry`].
//! 7. Time and chance, as arguments: [`ports`].

pub mod app;
pub mod auth;
pub mod aws;
#[cfg(not(feature = "seeded-bugs"))]
mod bugs;
#[cfg(feature = "seeded-bugs")]
pub mod bugs;
pub mod config;
pub mod connections;
pub mod dead_letters;
mod deadline;
mod delivery;
pub mod executor;
pub mod functions;
pub mod handler;
pub mod ids;
pub mod lambda;
pub mod lifecycle;
pub mod middleware;
pub mod ports;
pub mod processor;
pub mod progress;
pub mod router;
mod service_error;
pub mod store;
pub mod sweeper;
pub mod telemetry;
pub mod worker;

pub use service_error::ServiceError;
pub use streamer_protocol as protocol;
