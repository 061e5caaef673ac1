//! Errors of reading streams and splitting shards.

use std::fmt;

use crate::dynamodb::error::ApiError;

/// Error of reading a stream or splitting one of its shards.
#[derive(Debug)]
pub struct StreamError {
    pub(super) kind: StreamErrorKind,
    pub(super) message: String,
}

/// Kind of a [`StreamError`], from which a caller decides how to react.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// The stream or shard does not exist, or no longer exists. The caller should look up the table's latest stream.
    NotFound,
    /// The shard is closed, so it receives no more records and cannot be split.
    Closed,
    /// The database cannot be read or written. The caller should stop; a retry does not help.
    Database,
}

impl StreamError {
    pub(super) fn not_found(message: String) -> Self {
        Self { kind: StreamErrorKind::NotFound, message }
    }

    /// Returns the kind of the error, from which a caller decides how to react.
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
