//! An execution environment that runs in this process, on tokio's clock.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use streamer::ports::Timestamp;

use crate::faults::{Caller, Faults, MidwayFault};
use crate::lambda::in_process::{InProcessEnvironment, InProcessEvent, Starting};
use crate::lambda::invoke::InvokeError;
use crate::lambda::midway_fault::with_midway_fault;
use crate::lambda::options::Options;
use crate::lambda::process::Lifetimes;
use crate::lambda::runtime_api::{Event, MAX_REPLY_BYTES, Reply, response_too_large};

/// Exit reason of a Rust process whose main thread panicked.
const PANICKED: &str = "Runtime exited with error: exit status 101";
pub(super) const KILLED: &str = "Runtime exited with error: signal: killed";
pub(super) const TERMINATED: &str = "Runtime exited with error: signal: terminated";

#[derive(Debug)]
pub(super) struct Local {
    environment: Box<dyn InProcessEnvironment>,
    lifetimes: Lifetimes,
    process: Process,
}

/// Stand-in for the environment's process. Dropping this value kills the caller, so that calls of tasks that
/// still run have no effect.
#[derive(Debug)]
struct Process(Caller);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Local {
    /// Runs the init phase of an environment.
    ///
    /// # Errors
    /// [`InvokeError`] if the code reports an error, panics, is killed, or exceeds the init timeout.
    pub(super) async fn start(
        caller: &Caller,
        starting: Starting<'_>,
        options: &Options,
        lifetimes: &Lifetimes,
        request_id: &str,
    ) -> Result<Self, InvokeError> {
        let _alive = lifetimes.enter();
        let process = Process(caller.clone());
        let started = tokio::select! {
            biased;
            () = caller.killed() => return Err(InvokeError::exited(request_id, KILLED)),
            () = lifetimes.closed() => return Err(InvokeError::exited(request_id, TERMINATED)),
            started = AssertUnwindSafe(starting).catch_unwind() => started,
            () = tokio::time::sleep(options.init_timeout) => {
                return Err(InvokeError::timed_out(request_id, options.init_timeout));
            }
        };
        let environment = started.unwrap_or_else(|_| Err(InvokeError::exited(request_id, PANICKED)))?;
        Ok(Self { environment, lifetimes: lifetimes.clone(), process })
    }

    /// Runs one event. The function's future is dropped if the environment is killed or the event exceeds
    /// `timeout`.
    ///
    /// # Errors
    /// [`InvokeError`] if the environment panicked, was killed or terminated, or exceeded `timeout`.
    pub(super) async fn invoke(
        &mut self,
        event: Event,
        timeout: Duration,
        midway_fault: Option<(&Faults, MidwayFault)>,
    ) -> Result<Reply, InvokeError> {
        let _alive = self.lifetimes.enter();
        let caller = &self.process.0;
        let Event { request_id, trace_id, deadline_ms, payload, .. } = event;
        let deadline = Timestamp::from_millis(deadline_ms);
        let event = InProcessEvent { request_id: request_id.clone(), deadline, trace_id, payload };
        let invocation = self.environment.invoke(event);
        let invocation = match midway_fault {
            Some((faults, midway_fault)) => {
                Box::pin(with_midway_fault(invocation, caller, faults, midway_fault))
            }
            None => invocation,
        };
        tokio::select! {
            // Biased: an environment that a fault on one of its calls has killed must not return a reply.
            biased;
            () = caller.killed() => Err(InvokeError::exited(&request_id, KILLED)),
            () = self.lifetimes.closed() => Err(InvokeError::exited(&request_id, TERMINATED)),
            reply = AssertUnwindSafe(invocation).catch_unwind() => match reply {
                Ok(Ok(reply)) if reply.len() > MAX_REPLY_BYTES => Ok(Err(response_too_large())),
                Ok(reply) => Ok(reply),
                Err(_) => Err(InvokeError::exited(&request_id, PANICKED)),
            },
            () = tokio::time::sleep(timeout) => Err(InvokeError::timed_out(&request_id, timeout)),
        }
    }
}
