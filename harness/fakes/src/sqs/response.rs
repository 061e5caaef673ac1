//! Answers of the SQS fake.

use bytes::Bytes;

/// SQS's answer to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// Header `x-amzn-query-error`: the error's code in the older query protocol, and `Sender` or `Receiver` as its
    /// cause. `None` after a success, or if the error has no such code.
    pub(super) query_error: Option<String>,
}
