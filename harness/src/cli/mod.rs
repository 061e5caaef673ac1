mod aws;
mod cancel;
mod dlq;
mod local;
mod place;
mod ready;
mod record;
mod sim;
mod tables;
mod token;
mod trial;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use streamer_harness::signing_key::{SigningKey, TokenFor};
use streamer_harness::stage::Workspace;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

type Outcome = Result<ExitCode, Box<dyn Error>>;

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
    pub(crate) fn run(self) -> Outcome {
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

/// Whom a token is for.
#[derive(Args, Clone, Debug)]
struct Whom {
    /// The user that the token names
    #[arg(long, default_value = "demo-user", value_parser = name)]
    user: String,
    /// The tenant that the user belongs to
    #[arg(long, default_value = "demo-tenant", value_parser = name)]
    tenant: String,
    /// What the token permits, separated by commas
    #[arg(long, value_delimiter = ',')]
    permissions: Vec<String>,
    /// How long the token is valid: 90s, 15m, 1h or 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
}

impl From<Whom> for TokenFor {
    fn from(Whom { user, tenant, permissions, ttl }: Whom) -> Self {
        Self { user, tenant, permissions, ttl }
    }
}

/// What the commands of one workspace share: the signing key, and which stage is running.
#[derive(Debug)]
struct State {
    workspace: Workspace,
}

impl State {
    const TEMPLATES: [&str; 2] = ["template.yaml", "lambdas/template.yaml"];

    /// The state of the workspace that `template` lies in, or else of the one around the current folder.
    fn of(template: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let folder = match template.and_then(Path::parent) {
            Some(parent) if parent.is_dir() && !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => std::env::current_dir()?,
        };
        Ok(Self { workspace: Workspace::around(&folder)? })
    }

    /// The template that lies where SAM looks for it, or else the one of this workspace.
    fn template(&self) -> Result<PathBuf, Box<dyn Error>> {
        let root = &self.workspace.root;
        let mut known = Self::TEMPLATES.iter().map(|template| root.join(template));
        known.find(|template| template.exists()).ok_or_else(|| {
            let known = Self::TEMPLATES.join(" nor ");
            format!("{} has neither {known}: name your template with --template", root.display()).into()
        })
    }

    fn signing_key(&self) -> Result<SigningKey, Box<dyn Error>> {
        let file = self.folder().join("signing-key");
        SigningKey::load_or_create(&file)
            .map_err(|error| format!("the signing key {} cannot be used: {error}", file.display()).into())
    }

    fn running(&self) -> PathBuf {
        self.folder().join("running.json")
    }

    fn folder(&self) -> PathBuf {
        self.workspace.target_dir.join("streamer")
    }
}

/// Ctrl-C, a terminal that closes, or what asks a process to end; listened for from when it is made.
struct Stop {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Stop {
    /// Within a runtime, before anything is started that must be ended again.
    fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let (hangup, terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, hangup, terminate })
    }

    async fn requested(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Writes to standard output; whoever has stopped to read it has read enough.
fn say(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads `90s`, `15m`, `1h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a number with s, m, h or d, such as 90s or 1h, found {text:?}");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(expected()),
    };
    let total = number.checked_mul(seconds).filter(|total| (1..=MAX_TTL_SECS).contains(total));
    total.map(Duration::from_secs).ok_or_else(|| format!("must be from 1s to 365d, and is {text}"))
}

const MAX_TTL_SECS: u64 = 365 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "h", "1", "1y", "-1h", "1h30m", "0s", "366d", "99999999999999999999d", "1ä"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
