//! Load tests: simulated clients that use the WebSocket endpoint of a deployed or local stage as real clients
//! do.
//!
//! The options for the number of clients, the duration and the reports are those of goose; see `--help`.

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
        return Err(format!("--host must be a URL that begins with ws:// or wss://, not {host}").into());
    }
    let sends_nothing = only_prints(&configuration);
    let tokens = match Tokens::from_environment(|name| std::env::var(name).ok()) {
        Err(_) if sends_nothing => Tokens::default(),
        tokens => tokens?,
    };
    let tally = Arc::new(Tally::default());
    let attack = GooseAttack::initialize_with_config(configuration)?
        // Goose makes an HTTP client for each user, although this test uses none. Without cookies, all users
        // share one client.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies())?
        .register_scenario(visit::scenario(tokens, Arc::clone(&tally)));
    let outcome = Box::pin(attack.execute()).await;
    // Failed requests are reported even if a threshold was also not met.
    let verdict = if sends_nothing { Ok(()) } else { tally.verdict() };
    match outcome {
        Ok(_) => Ok(verdict?),
        Err(error @ GooseError::ThresholdsFailed { .. }) => {
            let failures = verdict.err().map(|error| format!("\n{error}")).unwrap_or_default();
            Err(format!("{error}{failures}").into())
        }
        Err(error) => Err(describe(&error).into()),
    }
}

/// Returns whether the options make goose print something, such as a list of scenarios, and exit without a
/// connection.
fn only_prints(configuration: &GooseConfiguration) -> bool {
    configuration.version
        || configuration.list
        || configuration.scenarios_list
        || configuration.render_report.is_some()
}

/// Returns the text of an error with its details, which goose's `Display` omits.
#[expect(clippy::wildcard_enum_match_arm, reason = "the `Display` text of each remaining error is complete")]
fn describe(error: &GooseError) -> String {
    match error {
        GooseError::InvalidOption { option, detail, .. } => format!("{option}: {detail}"),
        GooseError::InvalidHost { host, detail, .. } => format!("{host:?} is not a valid URL: {detail}"),
        GooseError::NoScenarios { detail } => detail.clone(),
        other => other.to_string(),
    }
}
