//! One execution environment: a process and the Runtime API that is its own.

use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::config::FunctionConfig;
use super::functions::Options;
use super::identifiers::log_stream;
use super::process::{Lifetimes, Process};
use super::runtime_api::{Event, Reply, RuntimeApi};
use super::{InvokeError, functions};

/// How long an environment that has just answered is waited for. A runtime is back for its next event within
/// microseconds; one that is not has still work to do, and the invocation takes another environment.
const BACK_WITHIN: Duration = Duration::from_millis(50);

/// An environment, which is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Environment {
    process: Process,
    api: Arc<RuntimeApi>,
    server: Server,
}

/// Whether an environment can take an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    Ready,
    Busy,
    Gone,
}

impl Environment {
    /// Starts an environment and waits until its runtime asks for an event.
    ///
    /// # Errors
    /// When the process cannot be started, ends, reports an error or does nothing within the time it has.
    pub(super) async fn start(
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
        request_id: &str,
    ) -> Result<Self, InvokeError> {
        let mut environment = Self::spawn(config, options, lifetimes).await.map_err(|error| {
            let message = format!("RequestId: {request_id} Error: {}: {error}", config.executable.display());
            functions::failed("Runtime.InvalidEntrypoint", message)
        })?;
        match environment.init(options.init_timeout, request_id).await {
            Ok(()) => Ok(environment),
            Err(error) => {
                environment.kill().await;
                Err(error)
            }
        }
    }

    async fn spawn(
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let stream = log_stream(&*options.entropy, options.clock.now());
        let mut command = Command::new(std::path::absolute(&config.executable)?);
        command.env_clear().envs(config.variables(&address, &stream)).current_dir(config.task_root());

        let api = RuntimeApi::new();
        let router = api.router();
        // Nagle's algorithm would hold back the end of an event for as long as the runtime delays its ACKs.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let server = Server(tokio::spawn(async move {
            // It runs until the environment is dropped; a listener that fails shows as an init timeout.
            let _ = axum::serve(listener, router).await;
        }));
        let process = Process::spawn(command, &config.name, &options.log, lifetimes)?;
        Ok(Self { process, api, server })
    }

    async fn init(&mut self, timeout: Duration, request_id: &str) -> Result<(), InvokeError> {
        tokio::select! {
            // A runtime that reports an error and then exits is told by what it reported.
            biased;
            ready = self.api.ready() => ready,
            reason = self.process.exited() => {
                let mut message = format!("RequestId: {request_id} Error: {reason}");
                // Not so on AWS, where one looks into the log; here the log may not be at hand.
                let last_words = self.process.last_words();
                if !last_words.is_empty() {
                    message = format!("{message}\n{last_words}");
                }
                Err(functions::failed("Runtime.ExitError", message))
            }
            () = tokio::time::sleep(timeout) => Err(timed_out(request_id, timeout)),
        }
    }

    /// Whether the environment, which has answered its last event, can take another.
    pub(super) async fn readiness(&self) -> Readiness {
        tokio::select! {
            biased;
            _ = self.process.exited() => Readiness::Gone,
            _ = self.api.ready() => Readiness::Ready,
            () = tokio::time::sleep(BACK_WITHIN) => Readiness::Busy,
        }
    }

    /// Runs one event, for which the function has `timeout`.
    ///
    /// # Errors
    /// When the environment did not survive; it is to be killed then.
    pub(super) async fn invoke(&mut self, event: Event, timeout: Duration) -> Result<Reply, InvokeError> {
        let request_id = event.request_id.clone();
        let mut reply = self.api.hand_over(event);
        tokio::select! {
            // A function that replies and then exits has replied.
            biased;
            Ok(reply) = &mut reply => Ok(reply),
            reason = self.process.exited() => {
                Err(functions::failed("Runtime.ExitError", format!("RequestId: {request_id} Error: {reason}")))
            }
            () = tokio::time::sleep(timeout) => Err(timed_out(&request_id, timeout)),
        }
    }

    /// Ends the environment and waits until its process is gone.
    pub(super) async fn kill(self) {
        let Self { process, server, .. } = self;
        process.kill().await;
        drop(server);
    }
}

fn timed_out(request_id: &str, after: Duration) -> InvokeError {
    let message =
        format!("RequestId: {request_id} Error: Task timed out after {:.2} seconds", after.as_secs_f64());
    functions::failed("Sandbox.Timedout", message)
}

/// The task that serves the Runtime API, which ends when this is dropped.
#[derive(Debug)]
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}
