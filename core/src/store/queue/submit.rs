use std::future::Future;

use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::error::StoreError;
use crate::store::request::{Request, Status};

/// Result of queueing a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    /// The request was new and is now queued.
    New,
    /// A request of the same user already has this id. The value is the existing request, unchanged.
    Existing(Box<Request>),
}

/// Result of cancelling a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cancelled {
    /// The request was not running and is now cancelled.
    Now {
        /// Connections that must receive the terminal frame.
        subscribers: Vec<ConnectionId>,
        /// Sequence number of the terminal frame.
        seq: Seq,
        /// Epoch of the request, to pass to [`record_delivery`](crate::store::SubscribeToRequests::record_delivery).
        epoch: u64,
        /// True if every part item (separate item for a large value) of the request that needs a time to live has
        /// one, as in [`Audience::part_ttls_set`](crate::store::Audience::part_ttls_set).
        part_ttls_set: bool,
    },
    /// An attempt is running. The cancel is recorded as requested; the attempt stops and makes the request CANCELLED.
    Requested,
    /// Not cancelled, because [other connections](SubmitRequests::cancel_unless_subscribed) subscribe to the request.
    HasOtherSubscribers,
    /// The request is already terminal, with this status.
    Ended(Status),
}

/// Writes on behalf of a request's user: queueing, cancelling and redriving. The router, the disconnect function and
/// operators make these writes.
pub trait SubmitRequests: Send + Sync {
    /// Queues a request, unless the same user already has a request of the same id.
    ///
    /// # Errors
    /// [`StoreError`] if the store refuses the write or does not respond.
    fn enqueue(&self, request: &Request) -> impl Future<Output = Result<Enqueued, StoreError>> + Send;

    /// Cancels a request. If an attempt is running, asks that attempt to stop and to cancel the request.
    ///
    /// # Errors
    /// [`NotFound`](crate::store::StoreErrorKind::NotFound) if the request does not exist;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if the request's status changed during every
    /// try; an error of a different kind if the store does not respond.
    fn cancel(
        &self,
        key: &RequestKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// [Cancels](Self::cancel) a request unless a connection other than `connection` subscribes to it.
    ///
    /// If a different connection subscribes, even concurrently with this call, the request continues and the result
    /// is [`HasOtherSubscribers`](Cancelled::HasOtherSubscribers).
    ///
    /// # Errors
    /// The same errors as [`cancel`](Self::cancel).
    fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// Stores in a failed request the id of the new request that a redrive created from its dead letter.
    ///
    /// `epoch` is the epoch in which the original request failed.
    ///
    /// # Errors
    /// [`NotFound`](crate::store::StoreErrorKind::NotFound) if no request with this key failed in this epoch; an
    /// error of a different kind if the write fails.
    fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
