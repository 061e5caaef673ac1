//! The `streamer` command as its users meet it, on a workspace whose functions compile in a moment.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod cancel;
mod dlq;
mod local;
mod record;
mod sim;
mod tables;
mod token;
mod workspace;
