//! Functions that run in this process: the same events and replies, without a process and a socket for each.

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
    /// Starts an execution environment, which is Lambda's init phase. `variables` are the function's environment
    /// variables, Lambda's own among them. Calls that it makes are made as `caller`.
    fn start(&self, caller: Caller, variables: BTreeMap<String, String>) -> Starting<'_>;
}

/// An execution environment to come; an error ends the init phase as on AWS.
pub type Starting<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn InProcessEnvironment>, InvokeError>> + Send + 'a>>;

/// One execution environment. It runs one event at a time; dropped, it is gone.
pub trait InProcessEnvironment: fmt::Debug + Send {
    /// Answers one event. Dropped before its end, the invocation has timed out or was killed.
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_>;
}

/// An event, and what Lambda tells with it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InProcessEvent {
    /// The invocation's id.
    pub request_id: String,
    /// When the invocation ends at the latest.
    pub deadline: Timestamp,
    /// The trace header of the invocation, which a process has as `_X_AMZN_TRACE_ID`.
    pub trace_id: String,
    /// The event as JSON.
    pub payload: Bytes,
}
