use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use axum::Router;
use tempfile::TempDir;

/// A temporary Cargo workspace with a template and one function.
pub(crate) struct Workspace {
    folder: TempDir,
}

/// Returns a command's exit code on the first line, followed by its standard output and standard error.
pub(crate) fn printed(output: &Output) -> String {
    let code = output.status.code().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{code}\n{}{}", text(&output.stdout), text(&output.stderr))
}

/// Serves HTTP on a free port until the test's process ends, and returns the URL.
pub(crate) fn serve(router: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
    });
    url
}

/// Source of a function that asks the Runtime API for an event, and waits for the event.
pub(crate) const IDLE: &str = r#"
    use std::io::{Read, Write};
    fn main() {
        let api = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
        let mut socket = std::net::TcpStream::connect(&api).unwrap();
        write!(socket, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {api}\r\n\r\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
"#;

/// Source of a function that exits with an error at its start.
pub(crate) const DIES: &str = r#"
    fn main() {
        eprintln!("TABLE is not set");
        std::process::exit(3);
    }
"#;

/// Source of a function that does not compile.
pub(crate) const BROKEN: &str = "fn main() { let answer: u32 = \"42\"; }";

impl Workspace {
    /// Makes a workspace whose only function has this source.
    pub(crate) fn new(function: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[package]\nname = \"fixture\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
        );
        write("src/bin/only.rs", function);
        write("lambdas/template.yaml", TEMPLATE);
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces `from` with `to` in the template.
    pub(crate) fn edit_template(&self, from: &str, to: &str) {
        let file = self.path().join("lambdas/template.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "the template contains the text to replace: {from:?}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Returns the `streamer` command in this workspace, with the workspace's own target folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamer"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env("CARGO_TARGET_DIR", self.path().join("target"))
            .stdin(Stdio::null());
        command
    }

    /// Returns the `streamer` command in an environment without AWS settings and credentials.
    pub(crate) fn command_without_aws(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must fail, and returns its error message, with the workspace's path replaced by
    /// `[workspace]`.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        assert_eq!(self.processes(), Vec::<String>::new(), "the failed command leaves no process running");
        // Cargo's output comes before the error message.
        let start = stderr.find("streamer: ").unwrap_or_else(|| {
            panic!("standard error contains an error that begins with `streamer: `: {stderr}")
        });
        stderr[start..].replace(&self.path().canonicalize().unwrap().display().to_string(), "[workspace]")
    }

    /// Returns the executable paths of all running processes whose executable is in this workspace.
    pub(crate) fn processes(&self) -> Vec<String> {
        let root = self.path().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap();
        processes
            .filter_map(|process| fs::read_link(process.ok()?.path().join("exe")).ok())
            .filter(|program| program.starts_with(&root))
            .map(|program| program.display().to_string())
            .collect()
    }
}

const TEMPLATE: &str = "\
AWSTemplateFormatVersion: '2010-09-09'
Transform: AWS::Serverless-2016-10-31
Parameters:
  JwtKey: { Type: String }
Resources:
  OnlyFunction:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: only } }
    Properties: { Runtime: provided.al2023, Handler: bootstrap, CodeUri: . }
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties: { Name: api, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action }
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Api
      IntegrationType: AWS_PROXY
      IntegrationUri: !Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${OnlyFunction.Arn}/invocations
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref Api, RouteKey: $default, Target: !Sub 'integrations/${Integration}' }
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties: { ApiId: !Ref Api, StageName: prod, AutoDeploy: true }
";
