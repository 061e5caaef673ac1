use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Error of an operation on a DynamoDB table. Its message says what failed and what to do.
#[derive(Debug)]
pub struct TablesError {
    kind: TablesErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kind of a [`TablesError`], which decides the caller's reaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TablesErrorKind {
    /// The endpoint does not answer: start the endpoint, or name a different one.
    Unreachable,
    /// The endpoint does not accept the credentials: sign in again, or use other credentials.
    Credentials,
    /// The credentials lack a permission: allow the operation, or use other credentials.
    Denied,
    /// The endpoint is busy or took too long: try again later.
    Busy,
    /// The endpoint refuses the request: correct the request.
    Refused,
    /// The endpoint does not know this operation: skip the operation.
    UnknownOperation,
}

impl TablesError {
    pub(super) fn new(kind: TablesErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Converts the error of an SDK call.
    pub(super) fn of_call<E>(endpoint: &str, operation: &str, table: &str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let reason = error.message().unwrap_or("the endpoint gave no reason").to_owned();
        let attempt = format!("{operation} of {table}");
        let (kind, message) = match error.code() {
            Some("UnknownOperationException") => (
                TablesErrorKind::UnknownOperation,
                format!("{endpoint} does not know the operation {operation}"),
            ),
            Some("AccessDeniedException") => (
                TablesErrorKind::Denied,
                format!(
                    "{attempt} is not permitted ({reason}); allow dynamodb:{operation}, or use another profile"
                ),
            ),
            Some(
                "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "ExpiredTokenException"
                | "IncompleteSignatureException"
                | "MissingAuthenticationTokenException",
            ) => (
                TablesErrorKind::Credentials,
                format!(
                    "{endpoint} does not accept the credentials ({reason}); sign in again, or use another profile"
                ),
            ),
            Some(
                "LimitExceededException"
                | "ThrottlingException"
                | "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "ResourceInUseException",
            ) => {
                (TablesErrorKind::Busy, format!("{attempt} is not possible now ({reason}); try again later"))
            }
            // The SDK has already retried the call.
            code if error.raw_response().is_some_and(|answer| answer.status().is_server_error()) => {
                let code = code.unwrap_or("no error code");
                (
                    TablesErrorKind::Busy,
                    format!("{endpoint} failed in {attempt} ({code}, {reason}); try again later"),
                )
            }
            Some(code) => (TablesErrorKind::Refused, format!("{attempt} was refused ({code}): {reason}")),
            None => {
                let reason = innermost(&error);
                (
                    TablesErrorKind::Unreachable,
                    format!(
                        "{endpoint} does not answer {attempt} ({reason}); start the endpoint, or name another one"
                    ),
                )
            }
        };
        Self { kind, message, source: Some(Box::new(error)) }
    }

    /// Returns the kind of this error, which decides the caller's reaction.
    #[must_use]
    pub const fn kind(&self) -> TablesErrorKind {
        self.kind
    }
}

/// Returns the text of the innermost source of an error. Outer errors of the SDK only say that a call failed.
#[must_use]
pub fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().trim_end_matches('.').to_owned()
}

impl fmt::Display for TablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for TablesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
