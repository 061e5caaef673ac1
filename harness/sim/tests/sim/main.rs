//! The simulator: many worlds, and what comes of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod determinism;
mod overload;
mod reports;
mod seeds;
mod users;
