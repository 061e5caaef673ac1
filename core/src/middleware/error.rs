use std::error::Error;
use std::fmt;
use std::iter;

use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;

use crate::handler::{HandlerError, Verdict};
use crate::protocol::{ErrorBody, ErrorCode};

/// Why a call has no reply, and what its client is told.
#[derive(Debug)]
pub struct CallError {
    kind: CallErrorKind,
    told: ErrorBody,
    verdict: Verdict,
    source: Option<BoxError>,
}

/// Who failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// Not the handler: it was not asked, or stopped, or something broke on the way. Told in an `error` frame.
    Refused,
    /// The handler itself. Told in a `response` without success, or in the `error` frame that ends a queued request.
    Failed,
}

impl CallError {
    /// A call that does not reach its handler, or is stopped there; `told` goes to the client.
    #[must_use]
    pub const fn refused(told: ErrorBody) -> Self {
        Self { kind: CallErrorKind::Refused, told, verdict: Verdict::Final, source: None }
    }

    /// The same error, that another attempt at a queued request may mend.
    #[must_use]
    pub const fn retryable(mut self) -> Self {
        self.verdict = Verdict::Retryable(None);
        self
    }

    /// Adds what caused it, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who failed.
    #[must_use]
    pub const fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// What the client is told.
    #[must_use]
    pub const fn told(&self) -> &ErrorBody {
        &self.told
    }

    /// What is to be done about a queued request that failed so.
    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn into_told(self) -> ErrorBody {
        self.told
    }

    /// Whether the log should have it: what a client can bring about at will has no source.
    pub(crate) const fn is_unexpected(&self) -> bool {
        self.source.is_some()
    }

    /// What a client is told of an error that a layer's service returned.
    pub(crate) fn read(error: &(dyn Error + 'static)) -> Option<Read> {
        let refused =
            |told, verdict| Some(Read { kind: CallErrorKind::Refused, told, verdict, is_unexpected: false });
        iter::successors(Some(error), |&error| error.source()).find_map(|cause| {
            if let Some(own) = cause.downcast_ref::<Self>() {
                let (kind, told, verdict) = (own.kind, own.told.clone(), own.verdict);
                Some(Read { kind, told, verdict, is_unexpected: own.is_unexpected() })
            } else if cause.is::<Elapsed>() {
                let told = ErrorBody::new(ErrorCode::Timeout, "The request took longer than it may");
                refused(told, Verdict::TimedOut)
            } else if cause.is::<Overloaded>() {
                let told =
                    ErrorBody::new(ErrorCode::RateLimited, "Too many requests are under way: try again");
                refused(told, Verdict::Retryable(None))
            } else {
                None
            }
        })
    }
}

/// What was found in an error, or in one of its sources.
pub(crate) struct Read {
    pub(crate) kind: CallErrorKind,
    pub(crate) told: ErrorBody,
    verdict: Verdict,
    is_unexpected: bool,
}

/// A failure of the handler's own, unless it was stopped.
impl From<HandlerError> for CallError {
    fn from(error: HandlerError) -> Self {
        let (told, verdict, source) = error.into_parts();
        let kind = match verdict {
            Verdict::TimedOut => CallErrorKind::Refused,
            Verdict::Final | Verdict::Retryable(_) | Verdict::Yielded => CallErrorKind::Failed,
        };
        Self { kind, told, verdict, source }
    }
}

/// What is made of the error that has come through all layers.
impl From<BoxError> for CallError {
    fn from(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        match Self::read(&*error) {
            // What wraps it is kept with it, down to its source.
            Some(Read { kind, told, verdict, is_unexpected }) => {
                Self { kind, told, verdict, source: is_unexpected.then_some(error) }
            }
            // What nobody knows may pass, as a handler's own unexpected error may.
            None => Self::refused(ErrorBody::processing_failed()).retryable().with_source(error),
        }
    }
}

/// What the log says.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.told.code, self.told.message)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
