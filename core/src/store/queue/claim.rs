use std::future::Future;

use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::error::StoreError;
use crate::store::request::{Lease, Request, Runner, Status};

/// Result of trying to claim a request.
#[derive(Debug)]
pub enum Claimed {
    /// The claim succeeded: the caller runs the request under this lease.
    Won(Box<Request>, Lease),
    /// The claim succeeded under this lease, but the request's stored values cannot be decoded. Retrying cannot
    /// succeed.
    Unreadable(Lease, StoreError),
    /// The claim succeeded under this lease, but the store did not respond when the request's values were read. A later
    /// read may succeed.
    Unreachable(Lease, StoreError),
    /// Not claimed, because the request is reserved for the worker and the caller is a processor.
    ForWorker,
    /// Not claimed, because the request does not wait for a claim, its retry is not due, or the owner token has held
    /// the request before. The value is the request's status.
    NotPending(Status),
    /// Not claimed, because the request does not exist.
    Missing,
}

/// Claims of requests: how a function acquires the right to run a request.
pub trait ClaimRequests: Send + Sync {
    /// Claims a request that is pending, or retrying and due, until `lease_end`.
    ///
    /// A successful claim raises the request's epoch by one and counts an attempt. The worker may claim any request.
    /// A claim by the processor returns [`ForWorker`](Claimed::ForWorker) if the request is reserved for the worker.
    ///
    /// `owner` is a token that the caller generates freshly for each claim. If a request was already claimed with the
    /// same token, this call is a late SDK retry of that claim, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the write fails, or if the stored item has no valid status. The claim may have succeeded
    /// despite the error. In this case, a repeated call with the same `owner` returns the successful claim.
    fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Claims the request that has been pending the longest, and returns [`Won`](Claimed::Won),
    /// [`Unreadable`](Claimed::Unreadable) or [`Unreachable`](Claimed::Unreachable); `None` if no request is pending.
    ///
    /// Deployed functions claim requests that arrive through the table's stream. This method is for operators, for
    /// tests, and for queues without a stream.
    ///
    /// # Errors
    /// The same errors as [`claim`](Self::claim). A request whose claim fails permanently does not block later
    /// requests. The error is returned only if no later request could be claimed, or after about a hundred failed
    /// claims.
    fn dequeue(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Option<Claimed>, StoreError>> + Send;
}
