//! The WebSocket gateway: an API Gateway WebSocket API with its management API, on the stage's port.
//!
//! In reading order: what an API is made of (`config`, `limits`, `throttle`, `selection`), the API and what serves it (`api`,
//! `server`), how a request becomes a socket (`upgrade`, `rates`, `handshake`, `identity`, `headers`, `query`, `authorizer`),
//! what an open socket does (`socket`), how functions are called (`integration`, `event`, `reply`), and how they reach
//! clients (`management`, `connections`). `in_process` does both without sockets.

mod api;
mod authorizer;
mod config;
mod connections;
mod event;
mod handshake;
mod headers;
mod identity;
mod ids;
mod in_process;
mod integration;
mod limits;
mod management;
mod query;
mod rates;
mod reply;
mod selection;
mod server;
mod socket;
mod throttle;
mod upgrade;

pub use authorizer::Authorizer;
#[doc(hidden)]
pub use authorizer::is_identity_source;
pub use config::{ApiConfig, ConfigError, Route};
pub use in_process::Opened;
pub use limits::{Limits, Unconfirmed};
pub use server::Gateway;
pub use throttle::Throttle;
