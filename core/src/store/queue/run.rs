use std::future::Future;

use serde_json::Value;

use super::subscribe::Subscriber;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::error::StoreError;
use crate::store::request::{LastReport, Lease, PastAttempt, Progress, Runner};

/// A request's subscribers, as a write of the lease's holder found them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audience {
    /// The connections that receive the request's frames.
    pub subscribers: Vec<Subscriber>,
    /// Whether its user or an operator has asked to cancel it: stop, and [confirm](RunRequests::confirm_cancel) that.
    pub cancel_requested: bool,
    /// Whether the write that ended the request has made its parts expire with it, or has found that none needs to. Pass it
    /// on to [`record_delivery`](crate::store::SubscribeToRequests::record_delivery), which does it otherwise.
    pub parts_released: bool,
}

/// What the holder of a request's lease writes.
///
/// Each of these writes is conditional on the epoch of its [`Lease`]: once another claim has raised it, the write
/// fails with [`Fenced`](crate::store::StoreErrorKind::Fenced) and has changed nothing.
pub trait RunRequests: Send + Sync {
    /// Prolongs the lease until `lease_end`, without any progress.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) when the lease is lost;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) when its holder has already prolonged it beyond
    /// `lease_end`, so that a write that arrives late changes nothing; else when the store does not answer.
    fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores the attempt's progress, and prolongs the lease until `lease_end`.
    ///
    /// # Errors
    /// The same as those of [`renew`](Self::renew).
    fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores what the handler continues from, with the attempt's progress, and prolongs the lease until `lease_end`.
    ///
    /// # Errors
    /// The same as those of [`renew`](Self::renew); also when the store does not take it.
    fn checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        checkpoint: &Value,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request with a result.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request with an error, after the attempts of this history: its dead letter is due from then on.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) when the lease is lost;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) when somebody has asked to cancel the request:
    /// [confirm](Self::confirm_cancel) that instead; else when the store does not take it.
    fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request as cancelled, after the attempt has stopped.
    ///
    /// # Errors
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Gives up the lease, and makes the request wait until `due` for its next attempt, by `runner`. The last entry of
    /// `history` says why this attempt failed.
    ///
    /// # Errors
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) when somebody has asked to cancel the request:
    /// [confirm](Self::confirm_cancel) that instead;
    /// [`Fenced`](crate::store::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn retry_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        history: &[PastAttempt],
        due: Timestamp,
        runner: Runner,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Gives up the lease, and makes the request pending again, so that a fresh invocation of the worker continues from its
    /// checkpoint within the same attempt.
    ///
    /// # Errors
    /// The same as those of [`retry_later`](Self::retry_later).
    fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;
}
