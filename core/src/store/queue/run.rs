use std::future::Future;

use serde_json::Value;

use super::subscribe::Subscriber;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::error::StoreError;
use crate::store::request::{LastReport, Lease, PastAttempt, Progress, Runner};

/// A request's subscribers and cancel flag, as returned by each write of the attempt that holds the lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audience {
    /// The connections that receive the request's frames.
    pub subscribers: Vec<Subscriber>,
    /// Whether a user or operator has asked to cancel the request. If so, the attempt must stop and call
    /// [`confirm_cancel`](RunRequests::confirm_cancel).
    pub cancel_requested: bool,
    /// True if every part item (separate item for a large value) of the request that needs a time to live has one.
    /// Pass this flag to [`record_delivery`](crate::store::SubscribeToRequests::record_delivery), which sets the
    /// missing times to live if the flag is `false`.
    pub part_ttls_set: bool,
}

/// Writes of an attempt that holds the lease of its request.
///
/// Each write is conditional on the epoch and owner token of the [`Lease`]. Once a later claim has raised the epoch,
/// the write fails with [`Fenced`](crate::store::StoreErrorKind::Fenced) and changes nothing.
pub trait RunRequests: Send + Sync {
    /// Renews the lease until `lease_end` without storing progress.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) if the lease is lost;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if this attempt has already renewed the lease
    /// past `lease_end`, so that a delayed write changes nothing; an error of a different kind if the store does not
    /// respond.
    fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores the attempt's progress and renews the lease until `lease_end`.
    ///
    /// # Errors
    /// The same errors as [`renew`](Self::renew).
    fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores a checkpoint, from which a later invocation continues, with the attempt's progress. Also renews the lease
    /// until `lease_end`.
    ///
    /// # Errors
    /// The same errors as [`renew`](Self::renew); [`TooLarge`](crate::store::StoreErrorKind::TooLarge) if the
    /// checkpoint is too large to store.
    fn checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        checkpoint: &Value,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Makes the request COMPLETED with its result.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) if the lease is lost; an error of a different kind if the
    /// write fails.
    fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Makes the request FAILED with its error and history, and marks its dead letter as due.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) if the lease is lost;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if a cancel was requested (call
    /// [`confirm_cancel`](Self::confirm_cancel) instead); an error of a different kind if the write fails.
    fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Makes the request CANCELLED, after the attempt has stopped because a cancel was requested.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) if the lease is lost; an error of a different kind if the
    /// write fails.
    fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Releases the lease and makes the request RETRYING, so that `runner` starts the next attempt at `due`. The last
    /// entry of `history` describes why this attempt failed.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) if the lease is lost;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if a cancel was requested (call
    /// [`confirm_cancel`](Self::confirm_cancel) instead); an error of a different kind if the write fails.
    fn retry_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        history: &[PastAttempt],
        due: Timestamp,
        runner: Runner,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Releases the lease and makes the request PENDING again, so that a new invocation of the worker continues the
    /// same attempt from its checkpoint.
    ///
    /// # Errors
    /// The same errors as [`retry_later`](Self::retry_later).
    fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;
}
