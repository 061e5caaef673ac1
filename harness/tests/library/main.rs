//! The library's router and processor on the embedded database: what they answer, store and send.
//!
//! Time is tokio's and virtual, so that leases, pacing and timeouts take no time and come out the same each run.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod broadcast;
mod budgets;
mod cancel;
mod cancel_running;
mod checkpoints;
mod connections;
mod crashes;
mod crossing;
mod dispatch;
mod flaky;
mod hostile;
mod lifecycle;
mod lifecycle_drivers;
mod middleware;
mod permissions;
mod processor;
mod rate_limits;
mod reports;
mod retries;
mod router;
mod scripted;
mod store;
mod store_costs;
mod stream_images;
mod subscriptions;
mod sweeper;
mod timeouts;
mod world;
