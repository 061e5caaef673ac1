//! An execution environment that is a process, with its own Runtime API.

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

/// Maximum time between an environment's reply and its request for the next event.
///
/// A runtime usually asks within microseconds. A runtime that takes longer counts as busy, and the next
/// invocation uses another environment.
const READY_TIMEOUT: Duration = Duration::from_millis(50);

/// Readiness of an environment for the next event.
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
    /// [`InvokeError`] if the process cannot be started, exits, reports an error, or exceeds the init timeout.
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
        // Nagle's algorithm would hold back the end of an event until the runtime's delayed ACK.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let server = Server(tokio::spawn(async move {
            // The server runs until the environment is dropped. If the listener fails, the init phase times
            // out.
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
            // Biased: if a runtime reports an error and then exits, the reported error is returned.
            biased;
            ready = self.api.ready() => ready,
            reason = self.process.exited() => {
                let mut message = format!("RequestId: {request_id} Error: {reason}");
                // Unlike on AWS, the message includes the last lines of standard error, because the log of the
                // process may not be available.
                let stderr = self.process.last_stderr_lines();
                if !stderr.is_empty() {
                    message = format!("{message}\n{stderr}");
                }
                Err(InvokeError::function("Runtime.ExitError", message))
            }
            () = tokio::time::sleep(timeout) => Err(InvokeError::timed_out(request_id, timeout)),
        }
    }

    /// Returns the readiness of an environment that has answered its last event.
    pub(super) async fn readiness(&self) -> Readiness {
        tokio::select! {
            biased;
            _ = self.process.exited() => Readiness::Gone,
            _ = self.api.ready() => Readiness::Ready,
            () = tokio::time::sleep(READY_TIMEOUT) => Readiness::Busy,
        }
    }

    /// Sends an event to the runtime, which must be ready.
    pub(super) fn send_event(&self, event: Event) -> Running {
        Running { request_id: event.request_id.clone(), reply: self.api.send_event(event) }
    }

    /// Waits for the function's reply to an event, for at most `timeout`.
    ///
    /// # Errors
    /// [`InvokeError`] if the process exited or the reply took longer than `timeout`. The caller must then
    /// call [`kill`](Self::kill).
    pub(super) async fn reply(&self, running: Running, timeout: Duration) -> Result<Reply, InvokeError> {
        let Running { request_id, mut reply } = running;
        tokio::select! {
            // Biased: if a function replies and then exits, the reply is returned.
            biased;
            Ok(reply) = &mut reply => Ok(reply),
            reason = self.process.exited() => Err(InvokeError::exited(&request_id, &reason)),
            () = tokio::time::sleep(timeout) => Err(InvokeError::timed_out(&request_id, timeout)),
        }
    }

    /// Kills the environment's process, and waits until the process has exited.
    pub(super) async fn kill(self) {
        let Self { process, server, .. } = self;
        process.kill().await;
        drop(server);
    }
}

/// An event that the runtime is processing.
#[derive(Debug)]
pub(super) struct Running {
    request_id: String,
    reply: oneshot::Receiver<Reply>,
}

/// Handle of the task that serves the Runtime API. Dropping the handle aborts the task.
#[derive(Debug)]
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}
