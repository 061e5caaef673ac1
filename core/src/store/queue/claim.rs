use std::future::Future;

use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::error::StoreError;
use crate::store::request::{Lease, Request, Runner, Status};

/// What became of an attempt to claim a request.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours to run, under this lease.
    Won(Box<Request>, Lease),
    /// It is ours under this lease, and its stored values cannot be read: another try would find them no better.
    Unreadable(Lease, StoreError),
    /// It is ours under this lease, and its stored values cannot be read for now, since the store does not answer.
    OutOfReach(Lease, StoreError),
    /// It is waiting for the worker, and the caller is not the worker.
    ForWorker,
    /// It is not waiting to be claimed.
    NotPending(Status),
    /// There is no such request.
    Missing,
}

/// How a function gets the right to run a request.
pub trait ClaimRequests: Send + Sync {
    /// Claims a pending request until `lease_end`, or one whose next attempt is due: raises its epoch and counts an attempt.
    ///
    /// The worker may claim any request; a processor learns which are [for the worker](Claimed::ForWorker).
    ///
    /// `owner` is a fresh token for each claim. A claim whose `owner` has held the request before is a late repetition, and
    /// claims nothing.
    ///
    /// # Errors
    /// When the store does not answer, or what it holds does not say what status the request has. Nothing is claimed then,
    /// as far as is known; a claim whose answer was lost is found again under the same `owner`.
    fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Claims the request that has been pending the longest: [`Won`](Claimed::Won),
    /// [`Unreadable`](Claimed::Unreadable) or [`OutOfReach`](Claimed::OutOfReach); `None` when none is pending.
    ///
    /// Requests are run from the table's stream. This is for operators and tests, and for queues without a stream.
    ///
    /// # Errors
    /// The same as those of [`claim`](Self::claim). A request that can never be claimed does not block later ones: it
    /// is an error only if none of those was claimed, or if a hundred could not be.
    fn dequeue(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Option<Claimed>, StoreError>> + Send;
}
