use std::future::Future;

use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::error::StoreError;
use crate::store::request::{Request, Status};

/// What became of an attempt to queue a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    /// It is new, and queued.
    New,
    /// A request of the same user has this id: here it is, unchanged.
    Existing(Box<Request>),
}

/// What became of an attempt to cancel a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cancelled {
    /// Nobody was running it: it is cancelled.
    Now {
        /// The connections that must receive the terminal frame.
        subscribers: Vec<ConnectionId>,
        /// The number of the terminal frame.
        seq: Seq,
        /// The epoch under which its [delivery](crate::store::SubscribeToRequests::record_delivery) is recorded.
        epoch: u64,
        /// As in an [`Audience`](crate::store::Audience).
        parts_released: bool,
    },
    /// An attempt is running: the holder of its lease is asked to stop, and writes CANCELLED.
    Requested,
    /// [Other connections](SubmitRequests::cancel_unless_subscribed) subscribe to it: it goes on.
    HasOtherSubscribers,
    /// Already terminal, with this status.
    Ended(Status),
}

/// What the router, the disconnect function and operators write on behalf of a request's user.
pub trait SubmitRequests: Send + Sync {
    /// Queues a request, unless its user has one of the same id.
    ///
    /// # Errors
    /// When the store does not take it.
    fn enqueue(&self, request: &Request) -> impl Future<Output = Result<Enqueued, StoreError>> + Send;

    /// Cancels a request that nobody runs, and asks the holder of the lease of one that runs to cancel it.
    ///
    /// # Errors
    /// [`NotFound`](crate::store::StoreErrorKind::NotFound) when there is no such request;
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) when its status kept changing meanwhile;
    /// else when the store does not answer.
    fn cancel(
        &self,
        key: &RequestKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// [Cancels](Self::cancel) a request unless a connection other than this one subscribes to it, even one that subscribed
    /// a moment ago: then the answer is [`HasOtherSubscribers`](Cancelled::HasOtherSubscribers), and the request goes on.
    ///
    /// # Errors
    /// The same as those of [`cancel`](Self::cancel).
    fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// Records on a request that failed in this epoch which request was made from its dead letter.
    ///
    /// # Errors
    /// [`NotFound`](crate::store::StoreErrorKind::NotFound) when it no longer exists; else when the store does not answer.
    fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
