//! The `streamer` command: the local stage, requests to it, and tokens for it.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

/// The simulator's worlds are many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let outcome = cli::Cli::parse().run();
    outcome.unwrap_or_else(|error| {
        eprintln!("streamer: {error}");
        ExitCode::FAILURE
    })
}
