use std::error::Error;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use streamer::ports::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use streamer::protocol::{ErrorBody, Frame, Seq};
use streamer_harness::client::Client;
use streamer_harness::stage::{Stage, listen};

use super::arguments::{TokenArguments, parse_duration};
use super::local::stage_config;
use super::process::{CommandResult, StopSignals, print, runtime};
use super::ready::Ready;
use super::state::State;

/// The `try` command: sends one request, and prints its progress and result.
#[derive(Args, Debug)]
pub(super) struct Try {
    /// Action of the request: one of your app's actions, or the built-in ping
    action: String,
    /// Payload of the request, as JSON
    #[arg(default_value = "null")]
    payload: String,
    #[command(flatten)]
    claims: TokenArguments,
    /// Give up if the stage sends nothing for this long, such as 90s or 15m
    #[arg(long, default_value = "15m", value_parser = parse_duration)]
    timeout: Duration,
}

impl Try {
    pub(super) fn run(self) -> CommandResult {
        let payload: Value = serde_json::from_str(&self.payload).map_err(|error| {
            format!("the payload is not valid JSON ({error}); quote the payload for the shell, as in '{{\"message\":\"hi\"}}'")
        })?;
        let state = State::of(None)?;
        let running = Ready::read_running(&state.running());
        let config = if running.is_none() { Some(stage_config(&state, None, listen(0)?)?) } else { None };
        let token = state.signing_key()?.sign(&self.claims.clone().into(), SystemClock.now());
        runtime()?.block_on(async {
            let mut stop = StopSignals::listen()?;
            let stage = match config {
                None => None,
                Some(config) => {
                    eprintln!("No stage is running; starting a temporary stage for this request ...");
                    tokio::select! {
                        biased;
                        () = stop.received() => return Err("interrupted".into()),
                        stage = config.start() => Some(stage?),
                    }
                }
            };
            let url =
                stage.as_ref().map(Stage::ws_url).or(running.map(|ready| ready.ws_url)).unwrap_or_default();
            let outcome = tokio::select! {
                biased;
                () = stop.received() => Err("interrupted".into()),
                outcome = self.watch(&url, &token, &payload) => outcome,
            };
            if let Some(stage) = stage {
                stage.shutdown().await;
            }
            print(&(serde_json::to_string_pretty(&outcome?)? + "\n"))?;
            Ok(ExitCode::SUCCESS)
        })
    }

    /// Sends the request, shows its progress, and returns its result.
    async fn watch(&self, url: &str, token: &str, payload: &Value) -> Result<Value, Box<dyn Error>> {
        let mut client = Client::connect(url, token).await?;
        let id = request_id();
        client.set_patience(self.timeout);
        client.request(&self.action, &id, payload).await?;
        let bar = Bar::new();
        let mut last = Seq::default();
        let outcome = loop {
            match client.next_frame().await? {
                Frame::Acknowledgment { message, .. } => bar.show_message(&message),
                Frame::Progress { percentage, message, seq, .. } if seq > last => {
                    last = seq;
                    bar.show_progress(percentage, &message);
                }
                // Ignores a progress frame that arrives after a later progress frame.
                Frame::Progress { .. } => {}
                Frame::Complete { result, .. } => break Ok(result),
                Frame::Response { success: true, data, .. } => break Ok(data.unwrap_or_default()),
                Frame::Response { error, .. } => break Err(error),
                Frame::Error { error, .. } => break Err(Some(error)),
            }
        };
        bar.finish(outcome.is_ok());
        // An error while closing does not matter, because the result has arrived.
        let _ = client.close().await;
        outcome.map_err(|error| failure(error).into())
    }
}

fn request_id() -> String {
    let mut bytes = [0; 8];
    SystemEntropy::new().fill(&mut bytes);
    format!("try-{:016x}", u64::from_be_bytes(bytes))
}

fn failure(error: Option<ErrorBody>) -> String {
    match error {
        Some(ErrorBody { code, message, .. }) => format!("the request failed with {code}: {message}"),
        None => "the request failed without an error in its reply".to_owned(),
    }
}

/// A progress bar on standard error, or one line per progress report if standard error is not a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    /// Length of the bar: 100 % in steps of 0.01 %.
    const UNITS: u64 = 10_000;

    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{elapsed_precise} [{bar:40.cyan/blue}] {percent:>3}% {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("█▉▊▋▌▍▎▏ ");
            ProgressBar::new(Self::UNITS).with_style(style)
        }))
    }

    fn show_message(&self, message: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(message.to_owned()),
            None => eprintln!("{message}"),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the percentage of a progress frame is from 0 to 100, so the position is from 0 to 10,000"
    )]
    fn show_progress(&self, percentage: f64, message: &str) {
        match &self.0 {
            Some(bar) => {
                bar.set_position((percentage / 100.0 * Self::UNITS as f64) as u64);
                bar.set_message(message.to_owned());
            }
            None => eprintln!("{percentage:5.1} % {message}"),
        }
    }

    fn finish(&self, succeeded: bool) {
        match &self.0 {
            Some(bar) if succeeded && bar.position() > 0 => bar.finish(),
            Some(bar) if succeeded => bar.finish_and_clear(),
            Some(bar) => bar.abandon(),
            None => {}
        }
    }
}
