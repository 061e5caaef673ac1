//! Tests of the WebSocket gateway as clients and functions see it.
//!
//! Most tests run over in-memory pipes with paused time. With paused time, a sleep ends only when no other
//! task can make progress.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails in a test helper fails the test")]

mod authorizer;
mod connect;
mod endings;
mod faults;
mod in_process;
mod management;
mod messages;
mod rates;
mod stage;
