//! Load tests: clients that use a WebSocket endpoint, staging's or the local stage's, as real ones do.
//!
//! Everything about how many there are, for how long, and what is written about them is goose's: see `--help`.

mod connection;
mod measure;
mod replies;
mod tally;
mod tokens;
mod visit;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::{GooseAttack, GooseError};

use crate::tally::Tally;
use crate::tokens::Tokens;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("streamer-loadtests: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let configuration = GooseConfiguration::parse_args_default_or_exit();
    if let Some(host) = &configuration.host
        && !host.starts_with("ws://")
        && !host.starts_with("wss://")
    {
        return Err(format!("--host must be a URL that begins with ws:// or wss://, and is {host}").into());
    }
    let drives_nothing = only_shows_something(&configuration);
    let tokens = match Tokens::from_environment(|name| std::env::var(name).ok()) {
        Err(_) if drives_nothing => Tokens::default(),
        tokens => tokens?,
    };
    let tally = Arc::new(Tally::default());
    let attack = GooseAttack::initialize_with_config(configuration)?
        // Goose makes an HTTP client for each user, though none is used here; without cookies all share one.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies())?
        .register_scenario(visit::scenario(tokens, Arc::clone(&tally)));
    let ended = Box::pin(attack.execute()).await;
    // Thresholds that are not met do not hide which requests failed.
    let verdict = if drives_nothing { Ok(()) } else { tally.verdict() };
    match ended {
        Ok(_) => Ok(verdict?),
        Err(error @ GooseError::ThresholdsFailed { .. }) => {
            let failures = verdict.err().map(|error| format!("\n{error}")).unwrap_or_default();
            Err(format!("{error}{failures}").into())
        }
        Err(error) => Err(what_is_wrong(&error).into()),
    }
}

/// Whether goose will print something and end, without a connection.
fn only_shows_something(configuration: &GooseConfiguration) -> bool {
    configuration.version
        || configuration.list
        || configuration.scenarios_list
        || configuration.render_report.is_some()
}

/// Goose's own `Display` leaves out the details of what it refuses.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors say everything themselves")]
fn what_is_wrong(error: &GooseError) -> String {
    match error {
        GooseError::InvalidOption { option, detail, .. } => format!("{option}: {detail}"),
        GooseError::InvalidHost { host, detail, .. } => format!("{host:?} is no URL: {detail}"),
        GooseError::NoScenarios { detail } => detail.clone(),
        other => other.to_string(),
    }
}
