//! One execution environment of a function: a process with its own Runtime API, or code in this process.

mod local;
mod sandbox;

use std::time::Duration;

use super::config::{Code, FunctionConfig};
use super::identifiers::log_stream;
use super::in_process::Starting;
use super::invoke::InvokeError;
use super::options::Options;
use super::process::Lifetimes;
use super::registry::Registration;
use super::runtime_api::{Event, Reply};
use crate::faults::{Caller, Effects, Faults, MidwayFault};
use local::{KILLED, Local, TERMINATED};
pub(super) use sandbox::Readiness;
use sandbox::Sandbox;
use tokio::time::sleep;

/// An execution environment of a function. Dropping this value kills the environment.
#[derive(Debug)]
pub(super) struct Environment {
    registration: Registration,
    code: Running,
}

#[derive(Debug)]
enum Running {
    Process(Sandbox),
    InProcess(Local),
}

impl Environment {
    /// Starts an environment and waits until the environment can accept an event.
    ///
    /// # Errors
    /// [`InvokeError`] if the environment cannot be started, exits, reports an error, or exceeds the init
    /// timeout.
    pub(super) async fn start(
        registration: Registration,
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
        request_id: &str,
        effects: Effects,
    ) -> Result<Self, InvokeError> {
        let stream = log_stream(&*options.entropy, options.clock.now());
        let caller = registration.caller();
        let code = match &config.code {
            Code::Program(program) => {
                let delayed = tokio::select! {
                    biased;
                    () = caller.killed() => Err(InvokeError::exited(request_id, KILLED)),
                    () = lifetimes.closed() => Err(InvokeError::exited(request_id, TERMINATED)),
                    injected = inject(effects, request_id) => injected,
                    () = sleep(options.init_timeout) => Err(InvokeError::timed_out(request_id, options.init_timeout)),
                };
                delayed?;
                Running::Process(
                    Sandbox::start(caller, program, &stream, config, options, lifetimes, request_id).await?,
                )
            }
            Code::InProcess(code) => {
                let variables = config.variables(&stream);
                let starting: Starting<'_> = Box::pin(async {
                    inject(effects, request_id).await?;
                    code.start(caller.clone(), variables).await
                });
                Running::InProcess(Local::start(caller, starting, options, lifetimes, request_id).await?)
            }
        };
        Ok(Self { registration, code })
    }

    /// Returns whether the environment must be replaced, because a newer version was deployed or its clock is
    /// skewed.
    pub(super) fn is_outdated(&self) -> bool {
        self.registration.is_outdated()
    }

    /// Returns the identity under which the environment makes calls.
    pub(super) const fn caller(&self) -> &Caller {
        self.registration.caller()
    }

    /// Returns the readiness of an environment that has answered its last event.
    pub(super) async fn readiness(&mut self) -> Readiness {
        match &self.code {
            Running::Process(sandbox) => sandbox.readiness().await,
            Running::InProcess(_) if self.registration.caller().is_killed() => Readiness::Gone,
            Running::InProcess(_) => Readiness::Ready,
        }
    }

    /// Sends one event to the environment, and waits for the reply for at most `timeout`.
    ///
    /// If `kill` is true, a fault kills the environment when it receives the event. `midway_fault` affects
    /// only code that runs in this process.
    ///
    /// # Errors
    /// [`InvokeError`] if the environment exited, panicked, was killed, or exceeded `timeout`. The caller
    /// must then call [`end`](Self::end).
    pub(super) async fn invoke(
        &mut self,
        event: Event,
        timeout: Duration,
        kill: bool,
        midway_fault: Option<(&Faults, MidwayFault)>,
    ) -> Result<Reply, InvokeError> {
        match &mut self.code {
            Running::Process(sandbox) => {
                let reply = sandbox.send_event(event);
                if kill {
                    self.registration.caller().kill();
                }
                sandbox.reply(reply, timeout).await
            }
            Running::InProcess(local) => {
                if kill {
                    self.registration.caller().kill();
                }
                local.invoke(event, timeout, midway_fault).await
            }
        }
    }

    /// Ends the environment, and waits until its process, if any, has exited.
    pub(super) async fn end(self) {
        match self.code {
            Running::Process(sandbox) => sandbox.kill().await,
            Running::InProcess(_) => {}
        }
    }
}

/// Injects the faults on the start of an environment, before the function's own code runs.
async fn inject(effects: Effects, request_id: &str) -> Result<(), InvokeError> {
    if !effects.delay.is_zero() {
        sleep(effects.delay).await;
    }
    match effects.effect {
        Some(_) => Err(InvokeError::exited(request_id, "Runtime exited with error: exit status 1")),
        None => Ok(()),
    }
}
