use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use super::process::CommandResult;
use super::{cancel, dlq, local, record, sim, tables, token, trial};

/// Async request processing for AWS Lambda, on your own machine.
///
/// Without a command it does what `local` does.
#[derive(Debug, Parser)]
#[command(name = "streamer", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the whole stage on this machine, and keep it up until Ctrl-C
    Local(local::Local),
    /// Send one request to the running stage, or to one of its own, and watch it to its end
    Try(trial::Try),
    /// Print a token that the local stage accepts
    Token(token::Token),
    /// Make, check or delete the template's tables at any endpoint of DynamoDB
    #[command(subcommand)]
    Tables(tables::Tables),
    /// Look at the requests that have failed for good, and make them anew
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// End a request, wherever it stands
    Cancel(cancel::Cancel),
    /// Make fixtures of the events that functions with STREAMER_RECORD wrote to their logs, without what is somebody's
    Record(record::Record),
    /// Run thousands of simulated worlds in which all goes wrong that can, and check what comes of them
    Sim(sim::Sim),
}

impl Cli {
    pub(crate) fn run(self) -> CommandResult {
        let log =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
        // Worlds are full of what is to be warned of.
        let least =
            if matches!(self.command, Some(Command::Sim(_))) { LevelFilter::OFF } else { LevelFilter::WARN };
        // What keeps the credentials from being found is said by the command that wants them.
        let heard = Targets::new().with_default(least).with_target("aws_config", LevelFilter::OFF);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log.with_filter(heard)))?;
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
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
