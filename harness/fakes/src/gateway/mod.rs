//! Fake of an API Gateway WebSocket API and its management API (`@connections`), served on the stage's port.
//!
//! The modules in reading order:
//! - settings of an API: `config`, `limits`, `throttle`, `selection`
//! - the running API and its HTTP routes: `api`, `server`
//! - upgrading a handshake to a WebSocket: `upgrade`, `rates`, `handshake`, `identity`, `headers`, `query`,
//!   `authorizer`
//! - serving an open WebSocket: `socket`
//! - invoking functions: `integration`, `event`, `reply`
//! - calls from functions to clients: `management`, `connections`
//! - WebSockets and management calls without network sockets: `in_process`

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
pub use limits::{Limits, UndocumentedBehavior};
pub use server::Gateway;
pub use throttle::Throttle;
