//! The `streamer` command: runs the local stage, sends requests, creates tokens and tables, handles dead
//! letters, and runs the simulator.

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

/// The allocator of the program is mimalloc, because the simulator makes many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let outcome = command::Cli::parse().run();
    outcome.unwrap_or_else(|error| {
        eprintln!("streamer: {error}");
        ExitCode::FAILURE
    })
}
