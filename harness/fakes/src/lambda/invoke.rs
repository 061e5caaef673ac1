//! The trait through which the stage invokes functions, and the errors of an invocation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// Version of every function in responses and ARNs. The fake has no published versions.
pub(super) const EXECUTED_VERSION: &str = "$LATEST";

/// Future of a synchronous invocation, which resolves to the reply's payload or to an error.
pub type Invocation<'a> = Pin<Box<dyn Future<Output = Result<Bytes, InvokeError>> + Send + 'a>>;

/// Invokes functions by name. Tests may implement the trait with a stub instead of real functions.
pub trait Invoke: fmt::Debug + Send + Sync {
    /// Runs `function` with `payload` and waits for the function's reply (invocation type `RequestResponse`).
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a>;

    /// Invokes `function` like [`invoke`](Self::invoke), with a request id that the caller has chosen.
    ///
    /// The provided implementation ignores `request_id`.
    fn invoke_as<'a>(&'a self, function: &'a str, request_id: String, payload: Bytes) -> Invocation<'a> {
        let _ = request_id;
        self.invoke(function, payload)
    }
}

/// Reason why an invocation returned no reply.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InvokeError {
    /// The function ran and failed: it returned an error, crashed, or timed out (`FunctionError: Unhandled`).
    Function {
        /// Error type that the runtime or Lambda reported, such as `Runtime.ExitError` or `Sandbox.Timedout`.
        error_type: String,
        /// Error message for humans.
        message: String,
    },
    /// The concurrency limit is reached, or the stage is shutting down (`TooManyRequestsException`).
    Throttled,
    /// The stage has no function with this name (`ResourceNotFoundException`).
    NotFound(String),
    /// The payload exceeds this maximum size in bytes (`RequestTooLargeException`).
    TooLarge(usize),
    /// The function was invoked too often in one chain of requests (`RecursiveInvocationException`).
    Recursion,
    /// Lambda itself failed, and the function may have run (`ServiceException`). Only an injected fault
    /// causes this error.
    Service,
}

impl InvokeError {
    pub(super) fn function(error_type: &str, message: String) -> Self {
        Self::Function { error_type: error_type.to_owned(), message }
    }

    /// Returns the error of an invocation whose process exited before it replied.
    pub(super) fn exited(request_id: &str, reason: &str) -> Self {
        Self::function("Runtime.ExitError", format!("RequestId: {request_id} Error: {reason}"))
    }

    /// Returns the error of a function that did not reply, or of a process that was not ready, within
    /// `timeout`.
    pub(super) fn timed_out(request_id: &str, timeout: Duration) -> Self {
        let secs = timeout.as_secs_f64();
        Self::function(
            "Sandbox.Timedout",
            format!("RequestId: {request_id} Error: Task timed out after {secs:.2} seconds"),
        )
    }
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { error_type, message } => write!(f, "{error_type}: {message}"),
            Self::Throttled => f.write_str("TooManyRequestsException: Rate Exceeded."),
            Self::NotFound(name) => write!(f, "ResourceNotFoundException: Function not found: {name}"),
            Self::TooLarge(limit) => write!(
                f,
                "RequestTooLargeException: Request must be smaller than {limit} bytes for the InvokeFunction operation"
            ),
            Self::Recursion => f.write_str(
                "RecursiveInvocationException: Lambda has detected your function being invoked in a recursive loop with \
                 other Amazon Web Services resources and stopped your function's invocation.",
            ),
            Self::Service => f.write_str("ServiceException: Lambda failed because of an injected fault"),
        }
    }
}

impl std::error::Error for InvokeError {}

/// Returns the payload that Lambda sends instead of a reply when a function has failed.
pub(super) fn error_payload(error: &InvokeError) -> Value {
    match error {
        InvokeError::Function { error_type, message } => {
            json!({ "errorType": error_type, "errorMessage": message })
        }
        InvokeError::Throttled
        | InvokeError::NotFound(_)
        | InvokeError::TooLarge(_)
        | InvokeError::Recursion
        | InvokeError::Service => json!({ "errorMessage": error.to_string() }),
    }
}
