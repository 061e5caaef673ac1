//! Tests of the `streamer` library (router, processor, worker, sweeper and store) on the embedded database.
//!
//! Most tests run on tokio's paused clock, so that waiting for leases, retries and timeouts takes no real
//! time and is deterministic.

#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test helper fails the test")]

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
