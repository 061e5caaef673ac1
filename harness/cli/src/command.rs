use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use super::process::CommandResult;
use super::{cancel, dlq, local, record, sim, tables, token, trial};

/// Runs, tests and operates Streamer, which processes slow requests on AWS Lambda.
///
/// Without a command, `streamer` does the same as `streamer local`: it builds the functions of the workspace,
/// and runs the whole stage (tables, functions, queues and gateway) on this machine.
#[derive(Debug, Parser)]
#[command(name = "streamer", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the functions, and run the whole stage on this machine until Ctrl-C (the default command)
    Local(local::Local),
    /// Send one request, and print its progress and result (starts a temporary stage if no local stage is
    /// running)
    Try(trial::Try),
    /// Print a token with which clients can connect to the local stage
    Token(token::Token),
    /// Create, check or delete the DynamoDB tables that the template describes, on AWS or at another endpoint
    #[command(subcommand)]
    Tables(tables::Tables),
    /// List, show or redrive dead letters (messages about requests that failed for good)
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Cancel a queued or running request
    Cancel(cancel::Cancel),
    /// Make test fixtures from events that functions logged with STREAMER_RECORD, with identifying values
    /// replaced
    Record(record::Record),
    /// Run one simulated stage with injected faults for each seed, and check the invariants of each run
    Sim(sim::Sim),
}

impl Cli {
    pub(crate) fn run(self) -> CommandResult {
        let log =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
        // The simulator injects faults on purpose, so its runs would log countless warnings.
        let level =
            if matches!(self.command, Some(Command::Sim(_))) { LevelFilter::OFF } else { LevelFilter::WARN };
        // Commands report missing AWS credentials in their own errors, so the SDK's own warnings are turned
        // off.
        let filter = Targets::new().with_default(level).with_target("aws_config", LevelFilter::OFF);
        tracing::subscriber::set_global_default(
            tracing_subscriber::registry().with(log.with_filter(filter)),
        )?;
        match self.command {
            None => local::Local::default().run(),
            Some(Command::Local(local)) => local.run(),
            Some(Command::Try(trial)) => trial.run(),
            Some(Command::Token(token)) => token.run(),
            Some(Command::Tables(tables)) => tables.run(),
            Some(Command::Dlq(dlq)) => dlq.run(),
            Some(Command::Cancel(cancel)) => cancel.run(),
            Some(Command::Record(record)) => record.run(),
            Some(Command::Sim(sim)) => sim.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_passes_the_checks_of_clap() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
