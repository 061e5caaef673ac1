//! One execution environment: a process behind its own Runtime API, or code that runs here.

mod local;
mod sandbox;

use std::time::Duration;

use super::InvokeError;
use super::config::{Code, FunctionConfig};
use super::functions::{self, Enlisted, Options};
use super::identifiers::log_stream;
use super::in_process::Starting;
use super::process::Lifetimes;
use super::runtime_api::{Event, Reply};
use crate::faults::{Caller, Effects, Faults, MidwayFault};
use local::{KILLED, Local, TERMINATED};
use sandbox::Sandbox;
use tokio::time::sleep;

/// An environment, which is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Environment {
    enlisted: Enlisted,
    code: Running,
}

#[derive(Debug)]
enum Running {
    Process(Sandbox),
    InProcess(Local),
}

/// Whether an environment can take an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    Ready,
    Busy,
    Gone,
}

impl Environment {
    /// Starts an environment and waits until it can take an event.
    ///
    /// # Errors
    /// When it cannot be started, ends, reports an error or does nothing within the time it has.
    pub(super) async fn start(
        enlisted: Enlisted,
        config: &FunctionConfig,
        options: &Options,
        lifetimes: &Lifetimes,
        request_id: &str,
        effects: Effects,
    ) -> Result<Self, InvokeError> {
        let stream = log_stream(&*options.entropy, options.clock.now());
        let caller = enlisted.caller();
        let code = match &config.code {
            Code::Program(program) => {
                let delayed = tokio::select! {
                    biased;
                    () = caller.killed() => Err(exited(request_id, KILLED)),
                    () = lifetimes.closed() => Err(exited(request_id, TERMINATED)),
                    injected = inject(effects, request_id) => injected,
                    () = sleep(options.init_timeout) => Err(timed_out(request_id, options.init_timeout)),
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
        Ok(Self { enlisted, code })
    }

    /// Whether the function has been deployed since it was started.
    pub(super) fn is_outdated(&self) -> bool {
        self.enlisted.is_outdated()
    }

    /// Whose calls it makes.
    pub(super) const fn caller(&self) -> &Caller {
        self.enlisted.caller()
    }

    /// Whether the environment, which has answered its last event, can take another.
    pub(super) async fn readiness(&mut self) -> Readiness {
        match &self.code {
            Running::Process(sandbox) => sandbox.readiness().await,
            Running::InProcess(_) if self.enlisted.caller().is_killed() => Readiness::Gone,
            Running::InProcess(_) => Readiness::Ready,
        }
    }

    /// Runs one event, for which the function has `timeout`; `doomed`, it dies as soon as it has the event. In process, it
    /// goes through `midway_fault`.
    ///
    /// # Errors
    /// When the environment did not survive; it is to be ended then.
    pub(super) async fn invoke(
        &mut self,
        event: Event,
        timeout: Duration,
        doomed: bool,
        midway_fault: Option<(&Faults, MidwayFault)>,
    ) -> Result<Reply, InvokeError> {
        match &mut self.code {
            Running::Process(sandbox) => {
                let reply = sandbox.hand_over(event);
                if doomed {
                    self.enlisted.caller().kill();
                }
                sandbox.reply(reply, timeout).await
            }
            Running::InProcess(local) => {
                if doomed {
                    self.enlisted.caller().kill();
                }
                local.invoke(event, timeout, midway_fault).await
            }
        }
    }

    /// Ends the environment and waits until its process, if it has one, is gone.
    pub(super) async fn end(self) {
        match self.code {
            Running::Process(sandbox) => sandbox.kill().await,
            Running::InProcess(_) => {}
        }
    }
}

/// What goes wrong with a start before the function's own code has its turn.
async fn inject(effects: Effects, request_id: &str) -> Result<(), InvokeError> {
    if !effects.delay.is_zero() {
        sleep(effects.delay).await;
    }
    match effects.effect {
        Some(_) => Err(exited(request_id, "Runtime exited with error: exit status 1")),
        None => Ok(()),
    }
}

pub(super) fn exited(request_id: &str, reason: &str) -> InvokeError {
    functions::failed("Runtime.ExitError", format!("RequestId: {request_id} Error: {reason}"))
}

fn timed_out(request_id: &str, after: Duration) -> InvokeError {
    let message =
        format!("RequestId: {request_id} Error: Task timed out after {:.2} seconds", after.as_secs_f64());
    functions::failed("Sandbox.Timedout", message)
}
