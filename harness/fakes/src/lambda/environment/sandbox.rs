//! An environment that is a process, and the Runtime API that is its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::faults::Caller;
use crate::lambda::config::{FunctionConfig, task_root};
use crate::lambda::invoke::InvokeError;
use crate::lambda::options::Options;
use crate::lambda::process::{Lifetimes, Process};
use crate::lambda::runtime_api::{Event, Reply, RuntimeApi};

/// How long an environment that has just answered is waited for. A runtime is back for its next event within
/// microseconds; one that is not has still work to do, and the invocation takes another environment.
const BACK_WITHIN: Duration = Duration::from_millis(50);

/// Whether an environment can take an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::lambda) enum Readiness {
    Ready,
    Busy,
    Gone,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    process: Process,
    api: Arc<RuntimeApi>,
    server: Server,
}

impl Sandbox {
    /// Starts an environment and waits until its runtime asks for an event.
    ///
    /// # Errors
    /// When the process cannot be started, ends, reports an error or does nothing within the time it has.
    pub(super) async fn start(
        caller: &Caller,
        program: &Path,
        log_stream: &str,
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
        request_id: &str,
    ) -> Result<Self, InvokeError> {
        let spawned = Self::spawn(caller, program, log_stream, config, options, lifetimes).await;
        let mut environment = spawned.map_err(|error| {
            let message = format!("RequestId: {request_id} Error: {}: {error}", program.display());
            InvokeError::function("Runtime.InvalidEntrypoint", message)
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
        caller: &Caller,
        program: &Path,
        log_stream: &str,
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let root = task_root(program);
        let mut command = Command::new(std::path::absolute(program)?);
        let variables = config.process_variables(root, &address, log_stream);
        command.env_clear().envs(variables).current_dir(root);

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
        let process = Process::spawn(command, caller, &options.log, lifetimes)?;
        if options.freeze {
            api.freeze_while_idle(process.group());
        }
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
                Err(InvokeError::function("Runtime.ExitError", message))
            }
            () = tokio::time::sleep(timeout) => Err(InvokeError::timed_out(request_id, timeout)),
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

    /// Gives an event to the runtime, which must be ready.
    pub(super) fn hand_over(&self, event: Event) -> Running {
        Running { request_id: event.request_id.clone(), reply: self.api.hand_over(event) }
    }

    /// Waits for what becomes of an event, for which the function has `timeout`.
    ///
    /// # Errors
    /// When the environment did not survive; it is to be killed then.
    pub(super) async fn reply(&self, running: Running, timeout: Duration) -> Result<Reply, InvokeError> {
        let Running { request_id, mut reply } = running;
        tokio::select! {
            // A function that replies and then exits has replied.
            biased;
            Ok(reply) = &mut reply => Ok(reply),
            reason = self.process.exited() => Err(InvokeError::exited(&request_id, &reason)),
            () = tokio::time::sleep(timeout) => Err(InvokeError::timed_out(&request_id, timeout)),
        }
    }

    /// Ends the environment and waits until its process is gone.
    pub(super) async fn kill(self) {
        let Self { process, server, .. } = self;
        process.kill().await;
        drop(server);
    }
}

/// An event that the runtime has.
#[derive(Debug)]
pub(super) struct Running {
    request_id: String,
    reply: oneshot::Receiver<Reply>,
}

/// The task that serves the Runtime API, which ends when this is dropped.
#[derive(Debug)]
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}
