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

use super::arguments::{Whom, duration};
use super::local::stage_config;
use super::process::{CommandResult, Stop, runtime, say};
use super::ready::Ready;
use super::state::State;

/// The `try` command.
#[derive(Args, Debug)]
pub(super) struct Try {
    /// What to ask for, such as echo or generate_report
    action: String,
    /// What to ask it with, as JSON
    #[arg(default_value = "null")]
    payload: String,
    #[command(flatten)]
    whom: Whom,
    /// How long to wait for the next frame: 90s, 15m, 1h or 7d
    #[arg(long, default_value = "15m", value_parser = duration)]
    timeout: Duration,
}

impl Try {
    pub(super) fn run(self) -> CommandResult {
        let payload: Value = serde_json::from_str(&self.payload).map_err(|error| {
            format!("the payload is not valid JSON ({error}): quote it for the shell, as in '{{\"message\":\"hi\"}}'")
        })?;
        let state = State::of(None)?;
        let running = Ready::read_running(&state.running());
        let config = if running.is_none() { Some(stage_config(&state, None, listen(0)?)?) } else { None };
        let token = state.signing_key()?.sign(&self.whom.clone().into(), SystemClock.now());
        runtime()?.block_on(async {
            let mut stop = Stop::listen()?;
            let stage = match config {
                None => None,
                Some(config) => {
                    eprintln!("No stage is running: starting one for this request ...");
                    tokio::select! {
                        biased;
                        () = stop.requested() => return Err("interrupted".into()),
                        stage = config.start() => Some(stage?),
                    }
                }
            };
            let url =
                stage.as_ref().map(Stage::ws_url).or(running.map(|ready| ready.ws_url)).unwrap_or_default();
            let outcome = tokio::select! {
                biased;
                () = stop.requested() => Err("interrupted".into()),
                outcome = self.watch(&url, &token, &payload) => outcome,
            };
            if let Some(stage) = stage {
                stage.shutdown().await;
            }
            say(&(serde_json::to_string_pretty(&outcome?)? + "\n"))?;
            Ok(ExitCode::SUCCESS)
        })
    }

    /// Sends the request, shows how it comes along, and returns its result.
    async fn watch(&self, url: &str, token: &str, payload: &Value) -> Result<Value, Box<dyn Error>> {
        let mut client = Client::connect(url, token).await?;
        let id = request_id();
        client.set_patience(self.timeout);
        client.request(&self.action, &id, payload).await?;
        let bar = Bar::new();
        let mut last = Seq::default();
        let outcome = loop {
            match client.next_frame().await? {
                Frame::Acknowledgment { message, .. } => bar.say(&message),
                Frame::Progress { percentage, message, seq, .. } if seq > last => {
                    last = seq;
                    bar.show(percentage, &message);
                }
                // Came late, behind a frame that was sent after it.
                Frame::Progress { .. } => {}
                Frame::Complete { result, .. } => break Ok(result),
                Frame::Response { success: true, data, .. } => break Ok(data.unwrap_or_default()),
                Frame::Response { error, .. } => break Err(error),
                Frame::Error { error, .. } => break Err(Some(error)),
            }
        };
        bar.finish(outcome.is_ok());
        // The result is here: how the connection ends does not matter any more.
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
        None => "the request failed, and does not say why".to_owned(),
    }
}

/// The progress bar; where standard error is no terminal, a line for each report.
struct Bar(Option<ProgressBar>);

impl Bar {
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

    fn say(&self, message: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(message.to_owned()),
            None => eprintln!("{message}"),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage is from 0 to 100"
    )]
    fn show(&self, percentage: f64, message: &str) {
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
