//! Traits of functions that run in this process, without child processes or sockets. Events and replies are
//! the same as on Lambda.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use streamer::ports::Timestamp;

use super::invoke::{Invocation, InvokeError};
use crate::faults::Caller;

/// The code of a function that runs in this process.
pub trait InProcess: fmt::Debug + Send + Sync {
    /// Starts an execution environment, which corresponds to Lambda's init phase.
    ///
    /// `variables` are the function's environment variables, including Lambda's own. The environment must use
    /// the identity `caller` in its calls to other fakes.
    fn start(&self, caller: Caller, variables: BTreeMap<String, String>) -> Starting<'_>;
}

/// Future that starts an execution environment. If it resolves to an error, the init phase fails, as on AWS.
pub type Starting<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn InProcessEnvironment>, InvokeError>> + Send + 'a>>;

/// One execution environment of a function that runs in this process.
///
/// The environment handles one event at a time. Dropping this value ends the environment.
pub trait InProcessEnvironment: fmt::Debug + Send {
    /// Handles one event and returns the reply. The returned future is dropped early if the invocation times
    /// out or the environment is killed.
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_>;
}

/// An event for a function that runs in this process, with Lambda's metadata about the invocation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InProcessEvent {
    /// Request id of the invocation.
    pub request_id: String,
    /// Time at which the invocation times out.
    pub deadline: Timestamp,
    /// X-Ray trace header of the invocation, which a process receives as `_X_AMZN_TRACE_ID`.
    pub trace_id: String,
    /// Payload of the event, as JSON.
    pub payload: Bytes,
}
