use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What went wrong, as a client sees it. Internal texts never stand in one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ErrorBody {
    /// What kind of error it is, for programs.
    pub code: ErrorCode,
    /// What went wrong, for people.
    pub message: String,
    /// Facts about it, for programs.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ErrorBody {
    /// An error without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new() }
    }

    /// A failure that the client learns nothing more of.
    #[must_use]
    pub fn processing_failed() -> Self {
        Self::new(ErrorCode::ProcessingFailed, "The request could not be processed")
    }

    /// The error of a request that was cancelled.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "The request was cancelled")
    }

    /// The same kind of error, for a frame that cannot carry its message and details.
    #[must_use]
    pub fn without_its_text(self) -> Self {
        const MAX_CODE_BYTES: usize = 128;
        let code =
            if self.code.as_str().len() <= MAX_CODE_BYTES { self.code } else { ErrorCode::ProcessingFailed };
        Self::new(code, "The error's message and details are larger than the gateway carries")
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    /// A `VALIDATION_ERROR` that names each field at fault in `details.fields`.
    #[must_use]
    pub fn invalid_fields(fields: &[FieldError]) -> Self {
        let message = fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::new(ErrorCode::ValidationError, message).with_detail("fields", json!(fields))
    }
}

/// What is wrong with one field of a payload.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FieldError {
    /// Where the field is: a dotted path from the payload, such as `filter.dates[0]`; empty for the payload itself.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl FieldError {
    /// A complaint about the field at `path`.
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
        /// The kind of an error, as the protocol names it.
        #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
        #[serde(from = "Cow<'static, str>", into = "String")]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code of a handler's own.
            Custom(String),
        }

        impl ErrorCode {
            /// The code as it stands in a frame.
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
    /// The message or its payload is not what it should be.
    ValidationError = "VALIDATION_ERROR",
    /// No handler is registered for the action.
    InvalidAction = "INVALID_ACTION",
    /// The connection has no valid identity (any more).
    Unauthorized = "UNAUTHORIZED",
    /// The identity lacks a permission.
    Forbidden = "FORBIDDEN",
    /// No such request, or none of the caller's.
    NotFound = "NOT_FOUND",
    /// Too many requests: wait before the next.
    RateLimited = "RATE_LIMITED",
    /// The request took longer than it may.
    Timeout = "TIMEOUT",
    /// The request was cancelled.
    Cancelled = "CANCELLED",
    /// The id is in use for a request with another action or payload.
    Conflict = "CONFLICT",
    /// A message or a result is larger than the gateway carries.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE",
    /// The handler could not process the request.
    ProcessingFailed = "PROCESSING_FAILED",
    /// Something on our side went wrong.
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
