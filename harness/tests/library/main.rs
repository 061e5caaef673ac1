//! The library's router and processor on the embedded database: what they answer, store and send.
//!
//! Time is tokio's and virtual, so that leases, pacing and timeouts take no time and come out the same each run.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod budgets;
mod connections;
mod crossing;
mod flaky;
mod hostile;
mod middleware;
mod permissions;
mod processor;
mod rate_limits;
mod router;
mod store;
mod store_costs;
mod stream_images;
mod world;
