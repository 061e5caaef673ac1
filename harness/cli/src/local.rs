use std::error::Error;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::{Stage, StageBuilder, listen};
use streamer_harness::template::{Environment, FindingKind, Template};

use super::process::{CommandResult, StopSignals, print, runtime};
use super::ready::Ready;
use super::state::State;

/// The `local` command: runs the whole stage on this machine until Ctrl-C.
#[derive(Args, Debug, Default)]
pub(super) struct Local {
    /// TCP port to listen on; 0 picks a free port [default: 4000]
    #[arg(long)]
    port: Option<u16>,
    /// File to which the stage writes its URLs and a token, as a JSON object, when the stage is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Folder that stores the tables and streams (created if missing) [default: in memory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// SAM template that describes the stage [default: template.yaml or lambdas/template.yaml in the workspace]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

const DEFAULT_PORT: u16 = 4000;

impl Local {
    pub(super) fn run(self) -> CommandResult {
        let state = State::of(self.template.as_deref())?;
        // The port is bound before the slow build, so that a port in use is reported immediately.
        let listener = listen(self.port.unwrap_or(DEFAULT_PORT))?;
        let mut config = stage_config(&state, self.template, listener)?;
        if let Some(folder) = self.data {
            config = config.data(folder);
        }
        runtime()?.block_on(async {
            // Signal handlers are installed before the stage starts, so that a signal during the start leaves
            // no function's process running.
            let mut stop = StopSignals::listen()?;
            let mut stage = tokio::select! {
                biased;
                () = stop.received() => return Ok(ExitCode::SUCCESS),
                stage = config.start() => stage?,
            };
            let ready = ready(&stage);
            let running = state.running();
            let files = self.ready_file.iter().chain([&running]);
            let written = files.clone().try_for_each(|file| {
                ready.write(file).map_err(|error| format!("{} cannot be written: {error}", file.display()))
            });
            let announced = written.and_then(|()| {
                print(&greeting(&stage, &ready, &example(&state))).map_err(|error| error.to_string())
            });
            let outcome = match announced {
                Err(error) => Err(error),
                Ok(()) => tokio::select! {
                    biased;
                    () = stop.received() => Ok(()),
                    error = stage.failed() => Err(error.to_string()),
                },
            };
            eprintln!("\nStopping the stage ...");
            for file in files {
                ready.remove(file);
            }
            stage.shutdown().await;
            outcome?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Builds the functions of the template, and returns the builder of a stage that runs these functions.
pub(super) fn stage_config(
    state: &State,
    template: Option<PathBuf>,
    listener: TcpListener,
) -> Result<StageBuilder, Box<dyn Error>> {
    let template = match template {
        Some(template) => template,
        None => state.template()?,
    };
    let signing_key = state.signing_key()?;
    // The template is read before the slow build, so that mistakes in the template are reported immediately.
    let environment = Environment { offered: signing_key.parameters(), ..Environment::default() };
    let functions = Template::load(&template, &environment)?.functions;
    let binaries: Vec<&str> = functions.iter().map(|function| function.binary.as_str()).collect();
    let executables = state.workspace.build(&binaries)?;
    Ok(Stage::builder()
        .template(template)
        .executables(executables)
        .signing_key(signing_key)
        .listener(listener))
}

fn ready(stage: &Stage) -> Ready {
    let claims = TokenFor {
        user: "demo-user".to_owned(),
        tenant: "demo-tenant".to_owned(),
        permissions: Vec::new(),
        ttl: Duration::from_hours(24),
    };
    Ready {
        ws_url: stage.ws_url(),
        token: stage.token(&claims),
        management_url: stage.management_url(),
        dynamodb_url: stage.dynamodb_url(),
    }
}

fn greeting(stage: &Stage, ready: &Ready, example: &str) -> String {
    let Ready { ws_url, token, management_url, dynamodb_url } = ready;
    let (not_emulated, harmless): (Vec<_>, Vec<_>) =
        stage.findings().iter().partition(|finding| finding.kind == FindingKind::NotEmulated);
    let mut text = String::new();
    if !stage.findings().is_empty() {
        text.push_str("Settings of the template that the local stage does not emulate:\n");
        for finding in not_emulated {
            text.push_str(&format!("  {finding}\n"));
        }
        let count = harmless.len();
        text.push_str(&format!(
            "  and {count} settings without a local effect (permissions, encryption, backups, labels)\n\n"
        ));
    }
    text.push_str(&format!(
        "\
The stage is running.

  WebSocket       {ws_url}
  @connections    {management_url}  (management API)
  AWS endpoint    {dynamodb_url}  (DynamoDB, DynamoDB Streams, SQS, Lambda)
  Token           {token}

To send a request, or to open a WebSocket, run one of these commands in another terminal:

  {example}
  npx wscat -c '{ws_url}?token={token}'

Press Ctrl-C to stop the stage.
"
    ));
    text
}

/// Returns a command that sends a valid request: an action of the demo in Streamer's own workspace, and
/// otherwise the built-in action `ping`, which every stage answers.
fn example(state: &State) -> String {
    if state.workspace.built_this_program() {
        format!("cargo run -- try generate_report '{DEMO_PAYLOAD}'")
    } else {
        "streamer try ping".to_owned()
    }
}

const DEMO_PAYLOAD: &str = r#"{"start_date":"2024-01-01","end_date":"2024-12-31","format":"pdf"}"#;
