use std::error::Error;
use std::fmt;
use std::iter;

use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;

use crate::handler::{HandlerError, Verdict};
use crate::protocol::{ErrorBody, ErrorCode};

/// The error of a call. It contains the error for the client, and says whether another attempt may succeed.
#[derive(Debug)]
pub struct CallError {
    kind: CallErrorKind,
    client_error: ErrorBody,
    verdict: Verdict,
    source: Option<BoxError>,
}

/// The origin of a [`CallError`]: the handler itself, or something else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The handler was not called, was stopped, or a layer failed. The client receives an `error` frame.
    Refused,
    /// The handler returned an error. The client receives a `response` frame with `success: false`, or, for a queued
    /// request, an `error` frame as the last frame.
    Failed,
}

impl CallError {
    /// Creates the error of a layer that rejects a call. The client receives `client_error`.
    #[must_use]
    pub const fn refused(client_error: ErrorBody) -> Self {
        Self { kind: CallErrorKind::Refused, client_error, verdict: Verdict::Final, source: None }
    }

    /// Makes the error retryable: a queued request that fails with it is attempted again.
    #[must_use]
    pub const fn retryable(mut self) -> Self {
        self.verdict = Verdict::Retryable(None);
        self
    }

    /// Adds the cause of the error. The cause is logged, and is never sent to the client.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns whether the handler or something else failed.
    #[must_use]
    pub const fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Returns the error that the client receives.
    #[must_use]
    pub const fn client_error(&self) -> &ErrorBody {
        &self.client_error
    }

    /// Returns whether a queued request that failed with this error may be attempted again.
    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn into_client_error(self) -> ErrorBody {
        self.client_error
    }

    /// Returns whether the error should be logged as a warning. Errors that clients can cause at will have no source.
    pub(crate) const fn is_unexpected(&self) -> bool {
        self.source.is_some()
    }

    /// Searches an error and its sources for a known type. Returns `None` if none is known.
    pub(crate) fn classify(error: &(dyn Error + 'static)) -> Option<Classified> {
        let refused = |client_error, verdict| {
            Some(Classified { kind: CallErrorKind::Refused, client_error, verdict, is_unexpected: false })
        };
        iter::successors(Some(error), |&error| error.source()).find_map(|cause| {
            if let Some(own) = cause.downcast_ref::<Self>() {
                let (kind, client_error, verdict) = (own.kind, own.client_error.clone(), own.verdict);
                Some(Classified { kind, client_error, verdict, is_unexpected: own.is_unexpected() })
            } else if cause.is::<Elapsed>() {
                let client_error = ErrorBody::new(ErrorCode::Timeout, "The request exceeded its time limit");
                refused(client_error, Verdict::TimedOut)
            } else if cause.is::<Overloaded>() {
                let client_error = ErrorBody::new(
                    ErrorCode::RateLimited,
                    "Too many requests are in progress: try again later",
                );
                refused(client_error, Verdict::Retryable(None))
            } else {
                None
            }
        })
    }
}

/// The facts that [`CallError::classify`] found in an error or in one of its sources.
pub(crate) struct Classified {
    pub(crate) kind: CallErrorKind,
    pub(crate) client_error: ErrorBody,
    verdict: Verdict,
    is_unexpected: bool,
}

/// Converts a handler's error. The kind is `Failed`, unless the handler was stopped by its timeout.
impl From<HandlerError> for CallError {
    fn from(error: HandlerError) -> Self {
        let (client_error, verdict, source) = error.into_parts();
        let kind = match verdict {
            Verdict::TimedOut => CallErrorKind::Refused,
            Verdict::Final | Verdict::Retryable(_) | Verdict::Yielded => CallErrorKind::Failed,
        };
        Self { kind, client_error, verdict, source }
    }
}

/// Converts the error that has passed all layers.
impl From<BoxError> for CallError {
    fn from(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        match Self::classify(&*error) {
            // The whole error becomes the source, so that the log shows the errors of layers that wrap the known error.
            Some(Classified { kind, client_error, verdict, is_unexpected }) => {
                Self { kind, client_error, verdict, source: is_unexpected.then_some(error) }
            }
            // An unknown error is retryable, like an unexpected error of a handler.
            None => Self::refused(ErrorBody::processing_failed()).retryable().with_source(error),
        }
    }
}

/// Formats code and message, for logs.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.client_error.code, self.client_error.message)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
