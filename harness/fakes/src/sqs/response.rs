//! What SQS answers.

use bytes::Bytes;

/// What SQS answers to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// The header `x-amzn-query-error`: an error's code in the older query protocol, and who is to blame.
    pub(super) query_error: Option<String>,
}
