use std::future::Future;

use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::error::StoreError;
use crate::store::request::Request;

/// A connection that subscribes to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscriber {
    /// The connection.
    pub connection: ConnectionId,
    /// The last frame that it has, from a snapshot or from a push: it is sent later ones alone, except for the terminal
    /// frame, which every subscriber is sent.
    pub seen: Seq,
}

/// What became of an attempt to subscribe to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscribed {
    /// The connection is subscribed: this is the request's [snapshot](crate::store::ReadRequests::snapshot). Frames with a
    /// number above its [`seq`](Request::seq) are sent to the connection. If the request has ended, send the terminal frame
    /// now; should that fail, the sweeper sends it once the request's timer fires.
    To(Box<Request>),
    /// The request has as many subscribers as it may have: these.
    Full(Vec<ConnectionId>),
    /// There is no such request.
    Missing,
}

/// What was done after the end of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery<'a> {
    /// The subscribers that have the terminal frame, or will never need it.
    pub delivered: &'a [ConnectionId],
    /// Whether no other subscriber needs the terminal frame, and no dead letter is left to send: nobody has to handle the
    /// request again, unless a connection has subscribed since.
    pub is_complete: bool,
    /// Whether its dead letter was sent.
    pub is_dead_letter_sent: bool,
    /// As the write that ended the request returned it; if unknown, `false` costs a call.
    pub parts_released: bool,
}

/// Which connections receive a request's frames.
pub trait SubscribeToRequests: Send + Sync {
    /// How many connections may subscribe to one request.
    const MAX_SUBSCRIBERS: usize = 16;

    /// Subscribes a connection to a request, open or ended, from its frame after `seen` on, or after the last that is
    /// stored, whichever is later. A connection may do so again.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no request.
    fn subscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> impl Future<Output = Result<Subscribed, StoreError>> + Send;

    /// Removes a connection from a request's subscribers, whatever its status. If the request has ended, and no subscriber
    /// is left, the request leaves the timer index as well.
    ///
    /// An unknown connection or request is no error.
    ///
    /// # Errors
    /// When the store does not answer.
    fn unsubscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records what was done after a request's end: removes the subscribers that have the terminal frame, and, when nothing
    /// is left to do and nobody has subscribed since, takes the request off the timer index.
    ///
    /// Changes nothing once a later epoch has taken over.
    ///
    /// # Errors
    /// When the store does not answer.
    fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
