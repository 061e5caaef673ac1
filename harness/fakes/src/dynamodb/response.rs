//! What DynamoDB answers.

use bytes::Bytes;

/// What DynamoDB answers to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status: 200, or that of the error.
    pub status: u16,
    /// The answer as JSON; of an error, DynamoDB's `__type` and message.
    pub body: Bytes,
}
