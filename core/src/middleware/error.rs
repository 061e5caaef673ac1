use std::error::Error;
use std::fmt;
use std::iter;

use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;

use crate::handler::{HandlerError, Verdict};
use crate::protocol::{ErrorBody, ErrorCode};

/// The error of a failed [`Call`](super::Call). It contains the error for the client, and decides whether a queued
/// request is retried.
#[derive(Debug)]
pub struct CallError {
    kind: CallErrorKind,
    client_error: ErrorBody,
    verdict: Verdict,
    source: Option<BoxError>,
}

/// The origin of a [`CallError`]: the handler itself, or the code around the handler.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The handler was not called, the handler was stopped, or a layer failed. The client receives an `error` frame.
    Refused,
    /// The handler returned an error. The client receives a `response` frame with `success: false`, or, for a queued
    /// request, an `error` frame as the last frame.
    Failed,
}

impl CallError {
    /// Creates an error with which a layer rejects a call. The client receives `client_error`.
    #[must_use]
    pub const fn refused(client_error: ErrorBody) -> Self {
        Self { kind: CallErrorKind::Refused, client_error, verdict: Verdict::Final, source: None }
    }

    /// Makes the error retryable, so that a queued request that fails with this error is retried.
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

    /// Returns the origin of the error: the handler itself, or the code around the handler.
    #[must_use]
    pub const fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Returns the error that the client receives.
    #[must_use]
    pub const fn client_error(&self) -> &ErrorBody {
        &self.client_error
    }

    /// Returns the decision whether a queued request that failed with this error is retried.
    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn into_client_error(self) -> ErrorBody {
        self.client_error
    }

    /// Returns `true` if the error has a source, and so should be logged as a warning. An error that any client can
    /// cause has no source.
    pub(crate) const fn is_unexpected(&self) -> bool {
        self.source.is_some()
    }

    /// Searches an error and its sources for a type that has a corresponding client error. Returns `None` if there is
    /// no such type.
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

/// The result of [`CallError::classify`]: the client error that corresponds to an error, and its origin.
pub(crate) struct Classified {
    pub(crate) kind: CallErrorKind,
    pub(crate) client_error: ErrorBody,
    verdict: Verdict,
    is_unexpected: bool,
}

/// Converts a handler's error. The kind is `Refused` if the handler was stopped by its timeout, and `Failed`
/// otherwise.
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

/// Converts an error of any type, after the error has passed all layers.
impl From<BoxError> for CallError {
    fn from(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        match Self::classify(&*error) {
            // The whole error becomes the source, so that the log also shows the errors in which layers have wrapped
            // the classified error.
            Some(Classified { kind, client_error, verdict, is_unexpected }) => {
                Self { kind, client_error, verdict, source: is_unexpected.then_some(error) }
            }
            // An error of an unknown type is retryable, like an error on which a handler uses `?`.
            None => Self::refused(ErrorBody::processing_failed()).retryable().with_source(error),
        }
    }
}

/// Formats the code and the message of the client error, for logs.
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
