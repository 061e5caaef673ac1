use std::error::Error;
use std::fmt;

use crate::ports::Timestamp;

/// Error of a store operation.
///
/// The [kind](Self::kind()) determines how the caller reacts; the text names the operation, the item and the table.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    context: String,
    entry: Option<(String, Timestamp)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kind of a [`StoreError`], by which the caller decides how to react.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The item does not exist, or no longer exists. Discard all state that the caller holds about the item.
    NotFound,
    /// An item of a different user has the same id. Choose a different id.
    AlreadyExists,
    /// The item is not in the state that the call expected. Read the item again before the next decision.
    ConditionLost,
    /// The attempt no longer holds the lease of its request. Stop the attempt and send no more frames.
    Fenced,
    /// The store throttled the call, even after the SDK's retries. Retry later, with fewer concurrent calls.
    Throttled,
    /// The store did not respond, or failed internally. The write may or may not have happened. Retry.
    Unavailable,
    /// The item would exceed DynamoDB's size limit. Retrying cannot succeed.
    TooLarge,
    /// A stored item cannot be decoded. An operator must inspect the item and attribute that the error names.
    Corrupt,
    /// The call is invalid or not permitted. Fix the code, the table or the IAM policy.
    Misuse,
}

impl StoreError {
    /// Creates an error of this kind. `context` names the failed operation and its item, such as
    /// `claim request acme/ann/r1 in table requests`.
    #[must_use]
    pub fn new(kind: StoreErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), entry: None, source: None }
    }

    /// Adds the underlying error, which [`source`](Error::source) returns.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Records which entry of a list the error is about: the entry's key, and the time by which the list is sorted.
    #[must_use]
    pub fn of_entry(mut self, key: impl Into<String>, at: Timestamp) -> Self {
        self.entry = Some((key.into(), at));
        self
    }

    /// Returns the unreadable list entry that the error is about: the entry's key, and the time by which the list is
    /// sorted. `None` if the error is not about a list entry.
    #[must_use]
    pub fn entry(&self) -> Option<(&str, Timestamp)> {
        self.entry.as_ref().map(|(key, at)| (key.as_str(), *at))
    }

    /// Returns the error's kind, which determines how the caller reacts.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            StoreErrorKind::Throttled | StoreErrorKind::Unavailable => true,
            StoreErrorKind::NotFound
            | StoreErrorKind::AlreadyExists
            | StoreErrorKind::ConditionLost
            | StoreErrorKind::Fenced
            | StoreErrorKind::TooLarge
            | StoreErrorKind::Corrupt
            | StoreErrorKind::Misuse => false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StoreErrorKind::NotFound => "not found",
            StoreErrorKind::AlreadyExists => "already exists",
            StoreErrorKind::ConditionLost => "condition not met",
            StoreErrorKind::Fenced => "lease lost",
            StoreErrorKind::Throttled => "throttled",
            StoreErrorKind::Unavailable => "store unavailable",
            StoreErrorKind::TooLarge => "too large",
            StoreErrorKind::Corrupt => "corrupt item",
            StoreErrorKind::Misuse => "call refused",
        };
        write!(f, "{kind}: {}", self.context)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
