use std::future::Future;

use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::error::StoreError;
use crate::store::request::{PastAttempt, RequestSummary, Status};

/// What becomes of a request whose lease has expired.
#[derive(Clone, Debug, PartialEq)]
pub enum Abandoned {
    /// The worker runs it again.
    Again,
    /// It has had all its attempts: it ends with this error.
    Failed(ErrorBody),
    /// Somebody has asked to cancel it: it ends as cancelled.
    Cancelled,
}

/// A status that a request without a lease can be given.
#[derive(Clone, Debug, PartialEq)]
pub enum NewStatus {
    /// From RETRYING, once the next of its remaining attempts is due.
    Pending,
    /// From PENDING or RETRYING: it ends with this error.
    Failed(ErrorBody),
    /// From PENDING or RETRYING: it ends without an outcome.
    Cancelled,
}

impl NewStatus {
    /// The status itself.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }

    /// Whether a request of status `from` may be given this status.
    #[must_use]
    pub const fn may_follow(&self, from: Status) -> bool {
        match self {
            Self::Pending => matches!(from, Status::Retrying),
            Self::Failed(_) | Self::Cancelled => matches!(from, Status::Pending | Status::Retrying),
        }
    }
}

/// What the sweeper writes about due items.
///
/// Each of these writes is conditional on what the caller has seen, so that of two sweepers one acts.
pub trait SweepRequests: Send + Sync {
    /// Makes an unclaimed pending request appear in the table's stream again, unless it has changed since it was `seen`.
    /// Returns whether it did.
    ///
    /// # Errors
    /// When the store does not answer.
    fn nudge(
        &self,
        seen: &RequestSummary,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Moves a request's timer from the `timer_at` that was seen to `until`, unless it has been set anew since. Returns
    /// whether it did.
    ///
    /// # Errors
    /// When the store does not answer.
    fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Takes a request from an attempt whose lease has expired, with the history that results, unless the lease was renewed
    /// or the request has changed since it was `seen`. Returns whether it did.
    ///
    /// The verdict must agree with whether somebody has asked to cancel the request: once that is so, it is neither run
    /// again nor failed, and before that it is not cancelled.
    ///
    /// If that ends the request, the terminal frame is delivered once its timer fires.
    ///
    /// # Errors
    /// [`Misuse`](crate::store::StoreErrorKind::Misuse) when it was not seen under a lease; else when the store does not
    /// take it.
    fn take_back(
        &self,
        seen: &RequestSummary,
        verdict: &Abandoned,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives a request without a lease another status. If that ends it, the terminal frame is delivered once its timer
    /// fires.
    ///
    /// # Errors
    /// [`Misuse`](crate::store::StoreErrorKind::Misuse) when `to` [may not follow](NewStatus::may_follow) `from`;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) when its status is not `from`, or when it is to
    /// become pending and has used all its attempts or is not due;
    /// [`NotFound`](crate::store::StoreErrorKind::NotFound) when there is no such request;
    /// else when the store does not take it.
    fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
