//! AWS Lambda: how the rest of the stage calls a function, and what runs it.
//!
//! [`Functions`] runs real function binaries as processes of their own. Each environment has its own
//! Runtime API on a loopback port, so a function cannot tell it from the one inside an AWS sandbox.

mod config;
mod environment;
mod functions;
mod identifiers;
mod in_process;
mod log;
mod output;
mod process;
mod runtime_api;

pub use config::{ConfigError, FunctionConfig};
pub use functions::{Functions, Options};
pub use in_process::{InProcess, InProcessEnvironment, InProcessEvent, Starting};
pub use log::{CapturedLog, LogSink, TerminalLog};

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// The answer to come of a synchronous invocation.
pub type Invocation<'a> = Pin<Box<dyn Future<Output = Result<Bytes, InvokeError>> + Send + 'a>>;

/// Something that can run functions by name: processes behind the Runtime API, or closures in a test.
pub trait Invoke: fmt::Debug + Send + Sync {
    /// Runs `function` with `payload` and waits for its reply (invocation type `RequestResponse`).
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a>;

    /// As [`invoke`](Self::invoke), under an id that the caller chose. Whoever cannot pass it on ignores it.
    fn invoke_as<'a>(&'a self, function: &'a str, request_id: String, payload: Bytes) -> Invocation<'a> {
        let _ = request_id;
        self.invoke(function, payload)
    }
}

/// Why an invocation has no reply.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InvokeError {
    /// The function ran and failed: it returned an error, crashed, or timed out (`FunctionError: Unhandled`).
    Function {
        /// As the runtime or Lambda names it, such as `Runtime.ExitError` or `Sandbox.Timedout`.
        error_type: String,
        /// What went wrong, in words.
        message: String,
    },
    /// No environment was free and no more may be started (`TooManyRequestsException`).
    Throttled,
    /// The stage has no function of this name (`ResourceNotFoundException`).
    NotFound(String),
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { error_type, message } => write!(f, "{error_type}: {message}"),
            Self::Throttled => f.write_str("TooManyRequestsException: Rate Exceeded."),
            Self::NotFound(name) => write!(f, "ResourceNotFoundException: Function not found: {name}"),
        }
    }
}

impl std::error::Error for InvokeError {}
