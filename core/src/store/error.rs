use std::error::Error;
use std::fmt;

use crate::ports::Timestamp;

/// A store that did not do what it was asked to.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    context: String,
    entry: Option<(String, Timestamp)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a [`StoreError`] means for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no such item (any more): forget what you knew of it.
    NotFound,
    /// Somebody else's item has the id: take another.
    AlreadyExists,
    /// The item does not stand as the call said: read it, and decide anew.
    ConditionLost,
    /// The lease is lost to a later claim: stop, and say nothing more.
    Fenced,
    /// The store is throttling, even after the client's own retries: come again later, with fewer calls at once.
    Throttled,
    /// The store did not answer, or failed on its side: the write may or may not have happened. Come again.
    Unavailable,
    /// The value is larger than an item may be: it will never be taken.
    TooLarge,
    /// What is stored cannot be read: an operator must look at the item and the attribute that the error names.
    Corrupt,
    /// The call itself is wrong, or not permitted: mend the code, the table or its policy.
    Misuse,
}

impl StoreError {
    /// An error of this kind; `context` says what was being done to what.
    #[must_use]
    pub fn new(kind: StoreErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), entry: None, source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the entry of a list that it is about, by its key and the time that the list is sorted by.
    #[must_use]
    pub fn of_entry(mut self, key: impl Into<String>, at: Timestamp) -> Self {
        self.entry = Some((key.into(), at));
        self
    }

    /// The entry of a list that cannot be read: its key, and the time that the list is sorted by.
    #[must_use]
    pub fn entry(&self) -> Option<(&str, Timestamp)> {
        self.entry.as_ref().map(|(key, at)| (key.as_str(), *at))
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
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
            StoreErrorKind::ConditionLost => "condition lost",
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
