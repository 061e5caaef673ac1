//! The `streamer` command: the local stage, requests to it, and tokens for it.

mod arguments;
mod aws;
mod cancel;
mod command;
mod dlq;
mod local;
mod place;
mod process;
mod ready;
mod record;
mod sim;
mod state;
mod tables;
mod token;
mod trial;

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

/// The simulator's worlds are many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let outcome = command::Cli::parse().run();
    outcome.unwrap_or_else(|error| {
        eprintln!("streamer: {error}");
        ExitCode::FAILURE
    })
}
