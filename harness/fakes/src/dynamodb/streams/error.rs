//! Why a stream cannot be read.

use std::fmt;

use crate::dynamodb::error::ApiError;

/// Why a stream could not be read.
#[derive(Debug)]
pub struct StreamError {
    pub(super) kind: StreamErrorKind,
    pub(super) message: String,
}

/// What to do about a stream that could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// There is no such stream or shard, or no longer: ask for the table's latest stream.
    NotFound,
    /// The shard is closed: it takes no more records, and cannot be split.
    Closed,
    /// The database cannot be read or written: give up.
    Database,
}

impl StreamError {
    pub(super) fn not_found(message: String) -> Self {
        Self { kind: StreamErrorKind::NotFound, message }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StreamError {}

impl From<rusqlite::Error> for StreamError {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            kind: StreamErrorKind::Database,
            message: format!("the streams cannot be read or written: {error}"),
        }
    }
}

impl From<StreamError> for ApiError {
    fn from(error: StreamError) -> Self {
        match error.kind() {
            StreamErrorKind::NotFound => Self::not_found(&error.to_string()),
            StreamErrorKind::Closed => Self::validation(&error.to_string()),
            StreamErrorKind::Database => Self::internal(&error.to_string()),
        }
    }
}
