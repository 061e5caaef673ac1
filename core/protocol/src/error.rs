use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The error that a client receives. It never contains internal error texts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ErrorBody {
    /// Kind of the error, for programs.
    pub code: ErrorCode,
    /// Description of the error, for users.
    pub message: String,
    /// Additional facts about the error, for programs; empty by default.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ErrorBody {
    /// Creates an error without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new() }
    }

    /// Creates the generic `PROCESSING_FAILED` error, which hides the cause of a failure from the client.
    #[must_use]
    pub fn processing_failed() -> Self {
        Self::new(ErrorCode::ProcessingFailed, "The request could not be processed")
    }

    /// Creates the `CANCELLED` error of a cancelled request.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "The request was cancelled")
    }

    /// Shortens an error that is too large for a frame: keeps the code, removes the details, and replaces the message
    /// by a short one.
    ///
    /// A code longer than 128 bytes is replaced by `PROCESSING_FAILED`.
    #[must_use]
    pub fn without_details(self) -> Self {
        const MAX_CODE_BYTES: usize = 128;
        let code =
            if self.code.as_str().len() <= MAX_CODE_BYTES { self.code } else { ErrorCode::ProcessingFailed };
        Self::new(code, "The error's message and details are too large for a WebSocket frame")
    }

    /// Adds an entry to `details`.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    /// Creates a `VALIDATION_ERROR` whose `details.fields` lists the invalid fields of the payload.
    #[must_use]
    pub fn invalid_fields(fields: &[FieldError]) -> Self {
        let message = fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::new(ErrorCode::ValidationError, message).with_detail("fields", json!(fields))
    }
}

/// A validation error of one field of a payload.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FieldError {
    /// Path of the invalid field in the payload, such as `filter.dates[0]`; empty if the whole payload is invalid.
    pub path: String,
    /// Description of the field's problem, such as `must be at least 1`.
    pub message: String,
}

impl FieldError {
    /// Creates a validation error for the field at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, message } = self;
        if path.is_empty() { write!(f, "payload: {message}") } else { write!(f, "{path}: {message}") }
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an error, as a code of the protocol such as `NOT_FOUND`.
        #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
        #[serde(from = "Cow<'static, str>", into = "String")]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code that is not part of the protocol, such as an application's own `CARD_DECLINED`.
            Custom(String),
        }

        impl ErrorCode {
            /// Returns the code as it appears in a frame, such as `NOT_FOUND`.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Custom(code) => code,
                }
            }
        }

        impl From<Cow<'static, str>> for ErrorCode {
            fn from(code: Cow<'static, str>) -> Self {
                match code.as_ref() {
                    $($text => Self::$name,)*
                    _ => Self::Custom(code.into_owned()),
                }
            }
        }
    };
}

error_codes! {
    /// The message or its payload is invalid.
    ValidationError = "VALIDATION_ERROR",
    /// No handler is registered for the action.
    InvalidAction = "INVALID_ACTION",
    /// The connection has no valid identity, for example because its token has expired.
    Unauthorized = "UNAUTHORIZED",
    /// The user lacks a required permission.
    Forbidden = "FORBIDDEN",
    /// The request does not exist, or belongs to another user.
    NotFound = "NOT_FOUND",
    /// The client sends too many requests, and must wait before it sends the next request.
    RateLimited = "RATE_LIMITED",
    /// The request exceeded its time limit.
    Timeout = "TIMEOUT",
    /// The request was cancelled.
    Cancelled = "CANCELLED",
    /// The request id is already used by a request with another action or payload.
    Conflict = "CONFLICT",
    /// A message or a result is too large.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE",
    /// Processing the request failed.
    ProcessingFailed = "PROCESSING_FAILED",
    /// The server failed unexpectedly, and the request was not the cause.
    InternalError = "INTERNAL_ERROR",
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        Self::from(Cow::Owned(code.to_owned()))
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
