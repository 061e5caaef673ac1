//! The `streamer` command: the local stage, requests to it, and tokens for it.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let outcome = cli::Cli::parse().run();
    outcome.unwrap_or_else(|error| {
        eprintln!("streamer: {error}");
        ExitCode::FAILURE
    })
}
