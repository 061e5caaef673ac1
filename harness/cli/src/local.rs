use std::error::Error;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::{Stage, StageBuilder, listen};
use streamer_harness::template::{Environment, FindingKind, Template};

use super::process::{CommandResult, Stop, runtime, say};
use super::ready::Ready;
use super::state::State;

/// The `local` command.
#[derive(Args, Debug, Default)]
pub(super) struct Local {
    /// The port to listen on; 0 takes a free one [default: 4000]
    #[arg(long)]
    port: Option<u16>,
    /// Where to write, once the stage is ready, a JSON object with its URLs and a token
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The folder to keep the tables and streams in [default: in memory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The SAM template to make the stage from [default: template.yaml of the workspace, or lambdas/template.yaml]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

const DEFAULT_PORT: u16 = 4000;

impl Local {
    pub(super) fn run(self) -> CommandResult {
        let state = State::of(self.template.as_deref())?;
        // Before the build, which takes longer.
        let listener = listen(self.port.unwrap_or(DEFAULT_PORT))?;
        let mut config = stage_config(&state, self.template, listener)?;
        if let Some(folder) = self.data {
            config = config.data(folder);
        }
        runtime()?.block_on(async {
            // Before the stage starts, so that a signal that comes meanwhile leaves no process behind.
            let mut stop = Stop::listen()?;
            let mut stage = tokio::select! {
                biased;
                () = stop.requested() => return Ok(ExitCode::SUCCESS),
                stage = config.start() => stage?,
            };
            let ready = ready(&stage);
            let running = state.running();
            let files = self.ready_file.iter().chain([&running]);
            let written = files.clone().try_for_each(|file| {
                ready.write(file).map_err(|error| format!("{} cannot be written: {error}", file.display()))
            });
            let told = written.and_then(|()| {
                say(&greeting(&stage, &ready, &example(&state))).map_err(|error| error.to_string())
            });
            let ended = match told {
                Err(error) => Err(error),
                Ok(()) => tokio::select! {
                    biased;
                    () = stop.requested() => Ok(()),
                    error = stage.failed() => Err(error.to_string()),
                },
            };
            eprintln!("\nEnding the stage ...");
            for file in files {
                ready.remove(file);
            }
            stage.shutdown().await;
            ended?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// A stage of the workspace's functions, built as the template names them.
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
    // Read once before the build, which takes longer: what is wrong with the template is said at once.
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
    let whom = TokenFor {
        user: "demo-user".to_owned(),
        tenant: "demo-tenant".to_owned(),
        permissions: Vec::new(),
        ttl: Duration::from_hours(24),
    };
    Ready {
        ws_url: stage.ws_url(),
        token: stage.token(&whom),
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
        text.push_str("Not on this stage:\n");
        for finding in not_emulated {
            text.push_str(&format!("  {finding}\n"));
        }
        let count = harmless.len();
        text.push_str(&format!(
            "  {count} settings without effect here (permissions, encryption, backups, labels)\n\n"
        ));
    }
    text.push_str(&format!(
        "\
The stage is up.

  WebSocket       {ws_url}
  @connections    {management_url}
  AWS SDKs        {dynamodb_url}  (DynamoDB and its streams, SQS, Lambda)
  Token           {token}

Paste into another terminal:

  {example}
  npx wscat -c '{ws_url}?token={token}'

Ctrl-C ends it.
"
    ));
    text
}

/// A request that the user can send as it is: the demo's in Streamer's own workspace, elsewhere what every stage answers.
fn example(state: &State) -> String {
    if state.workspace.built_this_program() {
        format!("cargo run -- try generate_report '{ORDER}'")
    } else {
        "streamer try ping".to_owned()
    }
}

const ORDER: &str = r#"{"start_date":"2024-01-01","end_date":"2024-12-31","format":"pdf"}"#;
