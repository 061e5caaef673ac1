use std::future::Future;

use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::error::StoreError;
use crate::store::request::Request;

/// A connection that subscribes to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscriber {
    /// Id of the subscribed connection.
    pub connection: ConnectionId,
    /// Sequence number of the last frame whose content the connection has received, in a snapshot or a push. Only
    /// later progress is sent to the connection. The terminal frame is sent to every subscriber.
    pub seen: Seq,
}

/// Result of subscribing a connection to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscribed {
    /// The connection is subscribed. The value is the request's [snapshot](crate::store::ReadRequests::snapshot).
    ///
    /// Frames with a sequence number above the snapshot's [`seq`](Request::seq) are sent to the connection. If the
    /// request is terminal, the caller sends the terminal frame now. If this send fails, the sweeper sends the frame
    /// when the request is due.
    To(Box<Request>),
    /// Not subscribed, because the request already has the maximum number of subscribers. The value lists their
    /// connections.
    Full(Vec<ConnectionId>),
    /// Not subscribed, because the request does not exist.
    Missing,
}

/// Outcome of delivering a terminal request, for [`record_delivery`](SubscribeToRequests::record_delivery) to store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery<'a> {
    /// Subscribers that have received the terminal frame or can never receive it.
    pub delivered: &'a [ConnectionId],
    /// True if `delivered` contains all remaining subscribers, and no dead letter remains to be sent. The request
    /// then leaves the timer index, unless a new connection has subscribed since.
    pub is_complete: bool,
    /// Whether the request's dead letter was sent.
    pub is_dead_letter_sent: bool,
    /// The [`part_ttls_set`](crate::store::Audience::part_ttls_set) flag that the terminal write returned. If
    /// unknown, pass `false`, which costs one more call.
    pub part_ttls_set: bool,
}

/// Operations on the connections that receive a request's frames.
pub trait SubscribeToRequests: Send + Sync {
    /// Maximum number of connections that may subscribe to one request.
    const MAX_SUBSCRIBERS: usize = 16;

    /// Subscribes a connection to a request, whether open or terminal.
    ///
    /// The connection receives the frames after sequence number `seen`, or after the last stored frame if that is
    /// later. A connection that is already subscribed may subscribe again.
    ///
    /// # Errors
    /// [`ConditionLost`](crate::store::StoreErrorKind::ConditionLost) if the request changed during every try; an
    /// error of a different kind if the store does not respond, or if the stored item is not a valid request.
    fn subscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> impl Future<Output = Result<Subscribed, StoreError>> + Send;

    /// Removes a connection from a request's subscribers.
    ///
    /// If the request is terminal, has no subscriber left and no dead letter to send, the request also leaves the
    /// timer index. The call also succeeds if the connection is not a subscriber, or the request does not exist.
    ///
    /// # Errors
    /// [`StoreError`] if a write fails.
    fn unsubscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records the deliveries of a terminal request: removes the subscribers that have received the terminal frame.
    ///
    /// If the delivery is complete, and no new connection has subscribed since, the request leaves the timer index.
    /// If the request has a later epoch than `epoch`, nothing changes.
    ///
    /// # Errors
    /// [`StoreError`] if a write fails.
    fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
