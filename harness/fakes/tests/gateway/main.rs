//! The WebSocket gateway as clients and functions see it: each test is named after the fact of AWS that it holds.
//!
//! Most run over pipes in memory under paused time, where a sleep of virtual time means "until nothing moves any more".

#![expect(clippy::unwrap_used, reason = "what does not hold in the helpers of a test fails that test")]

mod authorizer;
mod connect;
mod endings;
mod faults;
mod in_process;
mod management;
mod messages;
mod rates;
mod stage;
