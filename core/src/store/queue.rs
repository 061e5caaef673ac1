use std::future::Future;

use serde_json::Value;

use super::{
    LastReport, Lease, Page, PageRequest, PastAttempt, Progress, Request, RequestSummary, Runner, Status,
    StoreError,
};
use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};

/// What became of an attempt to queue a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    /// It is new, and queued.
    New,
    /// A request of the same user has this id: here it is, unchanged.
    Existing(Box<Request>),
}

/// What became of an attempt to claim a request.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours to run, under this lease.
    Won(Box<Request>, Lease),
    /// It is ours under this lease, and what is stored of it cannot be read: another try would find it no better.
    Unreadable(Lease, StoreError),
    /// It is ours under this lease, and what is stored of it cannot be read for now, since the store does not answer.
    OutOfReach(Lease, StoreError),
    /// It is waiting for the worker, and whoever asked is not.
    ForWorker,
    /// It is not waiting to be claimed.
    NotPending(Status),
    /// There is no such request.
    Missing,
}

/// A connection that listens to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscriber {
    /// The connection.
    pub connection: ConnectionId,
    /// The last frame that it knows of, from a snapshot or from having been sent it: it is sent later ones alone, but for
    /// the terminal frame, which everybody is sent.
    pub seen: Seq,
}

/// Who is to be told, as a write that the lease's holder made has found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audience {
    /// The connections that are told of the request.
    pub subscribers: Vec<Subscriber>,
    /// Whether its user or an operator wants it to end: stop, and write that it is
    /// [cancelled](RequestQueue::confirm_cancel).
    pub cancel_requested: bool,
    /// Whether the write that ended the request has seen to it that its parts expire with it, or has found that
    /// nothing needs to be seen to. Pass it on to [`record_delivery`](RequestQueue::record_delivery), which does it otherwise.
    pub parts_released: bool,
}

/// What has been done about the end of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery<'a> {
    /// Those who have the terminal frame, or will never need it.
    pub delivered: &'a [ConnectionId],
    /// Whether nobody else is to be told, and no dead letter is left to be sent: nobody needs to look at it again, unless
    /// somebody has come to listen since.
    pub is_complete: bool,
    /// Whether its dead letter was sent.
    pub is_dead_letter_sent: bool,
    /// As the write that ended it said; where it is not known, `false` costs a call.
    pub parts_released: bool,
}

/// What becomes of a request whose lease has ended without a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Abandoned {
    /// It is run again, by the worker.
    Again,
    /// It has had all its attempts: it ends with what its client is told.
    Failed(ErrorBody),
    /// Its end had been asked for.
    Cancelled,
}

/// What became of a wish to listen to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscribed {
    /// The connection listens: this is how the request stands, as it is [looked up](RequestQueue::snapshot). What has a higher
    /// number than [`seq`](Request::seq) is sent to it. If it has ended, its terminal frame is to be sent now; should that fail,
    /// it is sent once the request's timer fires.
    To(Box<Request>),
    /// As many connections as may be listen already: these.
    Full(Vec<ConnectionId>),
    /// There is no such request.
    Missing,
}

/// What became of an attempt to cancel a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cancelled {
    /// Nobody was running it: it has ended.
    Now {
        /// The connections that are to be told so.
        subscribers: Vec<ConnectionId>,
        /// The number of the frame that tells them.
        seq: Seq,
        /// The epoch under which their [delivery](RequestQueue::record_delivery) is noted.
        epoch: u64,
        /// As in an [`Audience`].
        parts_released: bool,
    },
    /// It runs: whoever holds its lease is asked to stop, and writes the end.
    Requested,
    /// Others than [who cancels](RequestQueue::cancel_unless_subscribed) listen to it: it goes on.
    HasOtherSubscribers,
    /// It has ended already, so.
    Ended(Status),
}

/// A status that a request can be given by somebody who does not hold its lease.
#[derive(Clone, Debug, PartialEq)]
pub enum NewStatus {
    /// From RETRYING, once the next of the attempts that it has left is due.
    Pending,
    /// From PENDING or RETRYING: it ends with what its client is told.
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

    /// Whether a request that stands as `from` says may be given this status.
    #[must_use]
    pub const fn may_follow(&self, from: Status) -> bool {
        match self {
            Self::Pending => matches!(from, Status::Retrying),
            Self::Failed(_) | Self::Cancelled => matches!(from, Status::Pending | Status::Retrying),
        }
    }
}

/// Where requests wait, are claimed, and end.
///
/// Every write that takes a [`Lease`] is conditional on its claim's epoch: once another claim has raised it,
/// the write fails with [`Fenced`](super::StoreErrorKind::Fenced) and has changed nothing.
///
/// Lists are read from indexes, which lag a little behind: a request that was written a moment ago may not be listed
/// yet. What is listed is as it stands, and what has moved on since does not appear.
pub trait RequestQueue: Send + Sync {
    /// How many connections may listen to one request.
    const MAX_SUBSCRIBERS: usize = 16;

    /// Queues a request, unless its user has one of the same id.
    ///
    /// # Errors
    /// When the store does not take it.
    fn enqueue(&self, request: &Request) -> impl Future<Output = Result<Enqueued, StoreError>> + Send;

    /// The request of this key, read consistently.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no request.
    fn get(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send;

    /// How the request of this key stands, read consistently: what its client may ask about. A payload or a checkpoint that
    /// is costly to read may be missing from it, null and none then.
    ///
    /// # Errors
    /// As [`get`](Self::get) has them.
    fn snapshot(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send {
        self.get(key)
    }

    /// Claims a pending request until `lease_end`, or one whose next attempt is due: raises its epoch and counts an attempt.
    ///
    /// The worker may claim any; a processor is told which are [for the worker](Claimed::ForWorker).
    ///
    /// `owner` is a token of this claim alone: where it has held the request last, the claim is one that arrives once more, and claims
    /// nothing.
    ///
    /// # Errors
    /// When the store does not answer, or what it holds does not say where the request stands. Nothing is claimed then,
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
    /// As [`claim`](Self::claim) has them. A request that cannot be claimed for good keeps nobody from the later ones: it
    /// is an error where none of those was claimed, or a hundred could not be.
    fn dequeue(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Option<Claimed>, StoreError>> + Send;

    /// Prolongs the lease until `lease_end`, without a word on how far the request has come.
    ///
    /// # Errors
    /// [`Fenced`](super::StoreErrorKind::Fenced) when the lease is lost;
    /// [`ConditionLost`](super::StoreErrorKind::ConditionLost) when its holder has prolonged it beyond `lease_end` already, so
    /// that a write that arrives late changes nothing; else when the store does not answer.
    fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores how far the request has come, and prolongs the lease until `lease_end`.
    ///
    /// # Errors
    /// As [`renew`](Self::renew) has them.
    fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Stores what the handler is to go on from, with how far it has come, and prolongs the lease until `lease_end`.
    ///
    /// # Errors
    /// As [`renew`](Self::renew) has them; also when the store does not take it.
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
    /// [`Fenced`](super::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request with an error, after the attempts of this history: its dead letter is due then.
    ///
    /// # Errors
    /// [`Fenced`](super::StoreErrorKind::Fenced) when the lease is lost, and
    /// [`ConditionLost`](super::StoreErrorKind::ConditionLost) when its end was asked for, so that it is to be
    /// [`confirm_cancel`](Self::confirm_cancel) instead; else when the store does not take it.
    fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request because its end was asked for.
    ///
    /// # Errors
    /// [`Fenced`](super::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Has the request wait until `due` for its next attempt, which `runner` makes; the last entry of `history` is why this
    /// one failed. The lease is given back.
    ///
    /// # Errors
    /// [`ConditionLost`](super::StoreErrorKind::ConditionLost) when its end was asked for: it is to be
    /// [cancelled](Self::confirm_cancel) instead;
    /// [`Fenced`](super::StoreErrorKind::Fenced) when the lease is lost; else when the store does not take it.
    fn retry_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        history: &[PastAttempt],
        due: Timestamp,
        runner: Runner,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Has the request go on from its checkpoint in a fresh invocation of the worker, within the same attempt. The lease
    /// is given back, and the request is pending again.
    ///
    /// # Errors
    /// As [`retry_later`](Self::retry_later) has them.
    fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Notes what has been done about a request's end: takes those that have the terminal frame off the list of who must
    /// be told, and when nothing is left to do, and nobody has come to listen since, the request off the timer index.
    ///
    /// What a later epoch has taken over is left alone.
    ///
    /// # Errors
    /// When the store does not answer.
    fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Has a pending request appear in the table's stream once more, since nobody has claimed it, unless it has moved on
    /// from how it was `seen`. Says whether it did so.
    ///
    /// # Errors
    /// When the store does not answer.
    fn nudge(
        &self,
        seen: &RequestSummary,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Has somebody look at a request at `until` instead of at the `timer_at` that was seen, unless its timer was set anew
    /// since. Says whether it did so.
    ///
    /// # Errors
    /// When the store does not answer.
    fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Takes a request from an attempt whose lease has ended, with the history that this makes, unless the lease was renewed
    /// or the request has moved on from how it was `seen`. Says whether it did so.
    ///
    /// Whether its end is asked for decides the verdict: it is not taken back to be run again, or to fail, once that is so, and not
    /// cancelled before.
    ///
    /// When that ends it, its subscribers are told once its timer fires.
    ///
    /// # Errors
    /// [`Misuse`](super::StoreErrorKind::Misuse) when it was not seen under a lease; else when the store does not
    /// take it.
    fn take_back(
        &self,
        seen: &RequestSummary,
        verdict: &Abandoned,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Has a connection listen to a request, open or ended, from its frame after `seen` on, or after the last that is stored,
    /// whichever is later. A connection may do so again.
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

    /// Notes on a request that failed in this epoch which one was made from its dead letter.
    ///
    /// # Errors
    /// [`NotFound`](super::StoreErrorKind::NotFound) when it is not there any more; else when the store does not answer.
    fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives a request that nobody runs another status. When that ends it, its subscribers are told once its timer
    /// fires.
    ///
    /// # Errors
    /// [`Misuse`](super::StoreErrorKind::Misuse) when `to` [may not follow](NewStatus::may_follow) `from`;
    /// [`ConditionLost`](super::StoreErrorKind::ConditionLost) when it does not stand as `from` says (any more), or is
    /// to be pending and has had all its attempts, so that it is to be given up, or is not due;
    /// [`NotFound`](super::StoreErrorKind::NotFound) when there is no such request;
    /// else when the store does not take it.
    fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends a request that nobody runs, and asks whoever runs it to end it.
    ///
    /// # Errors
    /// [`NotFound`](super::StoreErrorKind::NotFound) when there is no such request;
    /// [`ConditionLost`](super::StoreErrorKind::ConditionLost) when it changed its status again and again meanwhile;
    /// else when the store does not answer.
    fn cancel(
        &self,
        key: &RequestKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// [Cancels](Self::cancel) a request unless another connection than this one listens to it, also one that came to do
    /// so a moment ago: then it is [`HasOtherSubscribers`](Cancelled::HasOtherSubscribers), and goes on.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel) has them.
    fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;

    /// Takes a connection off those that are told, wherever the request stands. When it has ended, and nobody is left,
    /// it leaves the timer index as well.
    ///
    /// A connection that was never told, or a request that is not there, is nothing to complain of.
    ///
    /// # Errors
    /// When the store does not answer.
    fn unsubscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The requests that came over a connection, the newest first: those that are open are among them.
    ///
    /// # Errors
    /// When the store does not answer, or `page` is none that it can turn to.
    fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// The requests that stand so, the oldest first.
    ///
    /// # Errors
    /// When the store does not answer, or `page` is none that it can turn to.
    fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// The requests that somebody has to look at by `now`, the longest due first.
    ///
    /// # Errors
    /// When the store does not answer, or `page` is none that it can turn to.
    fn due(
        &self,
        now: Timestamp,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;
}
