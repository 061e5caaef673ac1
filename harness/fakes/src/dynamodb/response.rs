//! Answers of the DynamoDB fake.

use bytes::Bytes;

/// DynamoDB's answer to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// HTTP status of the answer: 200, or the status of the error.
    pub status: u16,
    /// Body of the answer as JSON. The body of an error contains DynamoDB's `__type`, and usually a message.
    pub body: Bytes,
}
