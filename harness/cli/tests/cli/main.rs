//! Tests that run the `streamer` program, in a workspace whose only function compiles quickly.

#![expect(clippy::unwrap_used, reason = "a panic in a test helper fails the test")]

mod bad_input;
mod cancel;
mod dlq;
mod local;
mod record;
mod sim;
mod tables;
mod token;
mod workspace;
