//! How the rest of the stage calls a function.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// The one version of a function that there is: its present code.
pub(super) const EXECUTED_VERSION: &str = "$LATEST";

/// The answer to come of a synchronous invocation.
pub type Invocation<'a> = Pin<Box<dyn Future<Output = Result<Bytes, InvokeError>> + Send + 'a>>;

/// Something that can run functions by name: processes behind the Runtime API, or closures in a test.
pub trait Invoke: fmt::Debug + Send + Sync {
    /// Runs `function` with `payload` and waits for its reply (invocation type `RequestResponse`).
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a>;

    /// The same under an id that the caller knows, which the function sees as its request id.
    ///
    /// Whoever has no use for the id ignores it, as this provided method does.
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
    /// The payload holds more bytes than this (`RequestTooLargeException`).
    TooLarge(usize),
    /// The function has been invoked too often in one chain of requests (`RecursiveInvocationException`).
    Recursion,
    /// Lambda itself failed, and the function may have run (`ServiceException`): a fault on request.
    Service,
}

impl InvokeError {
    pub(super) fn function(error_type: &str, message: String) -> Self {
        Self::Function { error_type: error_type.to_owned(), message }
    }

    /// The process of the invocation ended before it replied.
    pub(super) fn exited(request_id: &str, reason: &str) -> Self {
        Self::function("Runtime.ExitError", format!("RequestId: {request_id} Error: {reason}"))
    }

    /// The function did not reply, or its process was not ready, within `timeout`.
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
            Self::Service => f.write_str("ServiceException: Lambda failed, as was asked for"),
        }
    }
}

impl std::error::Error for InvokeError {}

/// What Lambda answers in place of a reply when a function has failed.
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
