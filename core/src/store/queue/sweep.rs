use std::future::Future;

use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::error::StoreError;
use crate::store::request::{PastAttempt, RequestSummary, Status};

/// Decision about a request whose lease has expired.
#[derive(Clone, Debug, PartialEq)]
pub enum ReclaimVerdict {
    /// The request becomes PENDING, and the worker runs it again.
    Rerun,
    /// The request has no attempts left and becomes FAILED with this error.
    Failed(ErrorBody),
    /// A cancel was requested, and the request becomes CANCELLED.
    Cancelled,
}

/// New status for a request that is not running, as set by [`update_status`](SweepRequests::update_status).
#[derive(Clone, Debug, PartialEq)]
pub enum NewStatus {
    /// PENDING. Follows RETRYING, once the request's next attempt is due.
    Pending,
    /// FAILED with this error. Follows PENDING or RETRYING.
    Failed(ErrorBody),
    /// CANCELLED. Follows PENDING or RETRYING.
    Cancelled,
}

impl NewStatus {
    /// Returns the new status without its error.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }

    /// Returns whether a request of status `from` may get this status.
    #[must_use]
    pub const fn may_follow(&self, from: Status) -> bool {
        match self {
            Self::Pending => matches!(from, Status::Retrying),
            Self::Failed(_) | Self::Cancelled => matches!(from, Status::Pending | Status::Retrying),
        }
    }
}

/// Writes of the sweeper, which handles due requests.
///
/// Each write is conditional on the state that the caller has read, so that of two concurrent sweepers only one acts.
pub trait SweepRequests: Send + Sync {
    /// Nudges an unclaimed pending request: writes to the item, so that the table's stream delivers the request again.
    ///
    /// Returns `false`, and changes nothing, if the request has changed since it was read as `seen`.
    ///
    /// # Errors
    /// [`StoreError`] if the write fails.
    fn nudge(
        &self,
        seen: &RequestSummary,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Moves a request's due time from `timer_at`, as read by the caller, to `until`.
    ///
    /// Returns `false`, and changes nothing, if the due time is no longer `timer_at`.
    ///
    /// # Errors
    /// [`StoreError`] if the write fails.
    fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Reclaims a request from an attempt whose lease has expired: applies `verdict` and stores the new `history`.
    ///
    /// Returns `false`, and changes nothing, if the lease was renewed or the request has otherwise changed since it was
    /// read as `seen`. The verdict must match the cancel flag: if a cancel was requested, only
    /// [`Cancelled`](ReclaimVerdict::Cancelled) is applied; otherwise `Cancelled` is not applied.
    ///
    /// If the request becomes terminal, the sweeper delivers the terminal frame when the request is due.
    ///
    /// # Errors
    /// [`Misuse`](crate::store::StoreErrorKind::Misuse) if `seen` has no lease; an error of a different kind if the
    /// write fails.
    fn reclaim(
        &self,
        seen: &RequestSummary,
        verdict: &ReclaimVerdict,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Changes the status of a request that is not running.
    ///
    /// If the request becomes terminal, the sweeper delivers the terminal frame when the request is due.
    ///
    /// # Errors
    /// - [`Misuse`](crate::store::StoreErrorKind::Misuse) if `to` [may not follow](NewStatus::may_follow) `from`.
    /// - [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if the status is not `from`, or if `to`
    ///   is PENDING and the request has no attempts left or is not due.
    /// - [`NotFound`](crate::store::StoreErrorKind::NotFound) if the request does not exist.
    /// - An error of a different kind if the write fails.
    fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
