use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Why something could not be done with a table, and what to do about it.
#[derive(Debug)]
pub struct TablesError {
    kind: TablesErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What to do about a [`TablesError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TablesErrorKind {
    /// Nothing answers: start the endpoint, or name another.
    Unreachable,
    /// The credentials are missing or not accepted: sign in, or name others.
    Credentials,
    /// The credentials may not do this: have it permitted.
    Denied,
    /// The endpoint is busy, or takes longer than one waits for: try again.
    Busy,
    /// The endpoint does not do this: mend what was asked for.
    Refused,
    /// The endpoint does not know this operation: do without it.
    UnknownOperation,
}

impl TablesError {
    pub(super) fn new(kind: TablesErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// What a call's failure means.
    pub(super) fn of_call<E>(endpoint: &str, operation: &str, table: &str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let said = error.message().unwrap_or("no reason was given").to_owned();
        let doing = format!("{operation} of {table}");
        let (kind, message) = match error.code() {
            Some("UnknownOperationException") => {
                (TablesErrorKind::UnknownOperation, format!("{endpoint} does not know {operation}"))
            }
            Some("AccessDeniedException") => (
                TablesErrorKind::Denied,
                format!(
                    "{doing} is not permitted: {said}; have dynamodb:{operation} allowed, or use another profile"
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
                    "{endpoint} does not accept the credentials: {said}; sign in anew, or use another profile"
                ),
            ),
            Some(
                "LimitExceededException"
                | "ThrottlingException"
                | "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "ResourceInUseException",
            ) => (TablesErrorKind::Busy, format!("{doing} must wait: {said}; try again")),
            // After the client's own retries.
            code if error.raw_response().is_some_and(|answer| answer.status().is_server_error()) => {
                let code = code.unwrap_or("an error of its own");
                (TablesErrorKind::Busy, format!("{endpoint} fails at {doing}: {code}: {said}; try again"))
            }
            Some(code) => (TablesErrorKind::Refused, format!("{doing} is refused: {code}: {said}")),
            None => {
                let reason = innermost(&error);
                (
                    TablesErrorKind::Unreachable,
                    format!(
                        "{endpoint} does not answer {doing}: {reason}; start it, or name another endpoint"
                    ),
                )
            }
        };
        Self { kind, message, source: Some(Box::new(error)) }
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> TablesErrorKind {
        self.kind
    }
}

/// What the innermost error says, which is most: those around it only say that a call failed.
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
