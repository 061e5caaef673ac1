//! The clients that are told of one request, each at its own pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::bugs::{self, Bug};
use crate::connections::{Connections, SendError, SendErrorKind};
use crate::ids::{ConnectionId, RequestKey};
use crate::protocol::Seq;
use crate::store::Subscriber;
use crate::telemetry::Causes;

/// Sends frames to a request's subscribers.
///
/// Frames to one connection are serial. Who takes longer than others misses what came meanwhile, and is sent the
/// latest then: nobody waits for anybody else.
pub(crate) struct FanOut<'a, P> {
    connections: &'a P,
    key: RequestKey,
    /// How long one frame may take to one client.
    push_timeout: Duration,
    /// Until when progress may be sent at all.
    lease_holds_until: Instant,
    subscribers: Vec<ConnectionId>,
    /// The latest progress.
    progress: Option<(Seq, Arc<str>)>,
    /// The terminal frame, and until when it may be sent.
    end: Option<(Seq, Arc<str>, Instant)>,
    /// The last frame that was sent to each, unless it failed and is to be sent again.
    tried: BTreeMap<ConnectionId, Seq>,
    /// Up to where those knew of the request's progress who came to listen meanwhile.
    seen: BTreeMap<ConnectionId, Seq>,
    /// Those to whom a frame is on its way.
    sending: BTreeSet<ConnectionId>,
    sends: FuturesUnordered<BoxFuture<'a, Sent>>,
    /// Who has the terminal frame.
    delivered: BTreeSet<ConnectionId>,
    /// Who will never have any frame.
    gone: BTreeSet<ConnectionId>,
}

struct Sent {
    to: ConnectionId,
    seq: Seq,
    outcome: Result<(), SendError>,
}

impl<'a, P: Connections> FanOut<'a, P> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) fn new(
        connections: &'a P,
        key: RequestKey,
        push_timeout: Duration,
        lease_holds_until: Instant,
        subscribers: Vec<ConnectionId>,
    ) -> Self {
        Self {
            connections,
            key,
            push_timeout,
            lease_holds_until,
            subscribers,
            progress: None,
            end: None,
            tried: BTreeMap::new(),
            seen: BTreeMap::new(),
            sending: BTreeSet::new(),
            sends: FuturesUnordered::new(),
            delivered: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Takes over what a stored write has found, and sends the latest progress to whoever lacks it.
    pub(crate) fn renew(&mut self, lease_holds_until: Instant, subscribers: Vec<Subscriber>) {
        self.lease_holds_until = lease_holds_until;
        self.seen = subscribers.iter().map(|listens| (listens.connection.clone(), listens.seen)).collect();
        self.subscribers = subscribers.into_iter().map(|listens| listens.connection).collect();
        self.send_to_all();
    }

    /// Starts to send progress to everyone who is not busy with an earlier frame.
    pub(crate) fn offer(&mut self, seq: Seq, frame: String) {
        self.progress = Some((seq, frame.into()));
        self.send_to_all();
    }

    fn send_to_all(&mut self) {
        for to in self.subscribers.clone() {
            self.send_next(to);
        }
    }

    /// Starts to send what comes next for a client, if anything does and nothing is on its way.
    fn send_next(&mut self, to: ConnectionId) {
        let is_busy = self.sending.contains(&to);
        let is_busy = bugs::instead(Bug::PushesOverlap, false, is_busy);
        if self.gone.contains(&to) || is_busy || !self.subscribers.contains(&to) {
            return;
        }
        let Some((seq, frame, until)) = self.next_for(&to) else { return };
        self.tried.insert(to.clone(), seq);
        self.sending.insert(to.clone());
        let connections = self.connections;
        self.sends.push(Box::pin(async move {
            let sent = timeout_at(until, connections.send(&to, &frame)).await;
            let outcome = sent.unwrap_or_else(|_| Err(SendError::new(SendErrorKind::Unanswered)));
            Sent { to, seq, outcome }
        }));
    }

    /// The latest progress, and after it the end: each once, while there is time for it.
    fn next_for(&self, to: &ConnectionId) -> Option<(Seq, Arc<str>, Instant)> {
        let (now, tried) = (Instant::now(), self.tried.get(to).copied().unwrap_or_default());
        // The end is for everybody, whatever they say that they have seen.
        let known = tried.max(self.seen.get(to).copied().unwrap_or_default());
        let progress = self.progress.as_ref().filter(|(seq, _)| *seq > known);
        let progress = progress.map(|(seq, frame)| (*seq, frame, self.lease_holds_until));
        let end = self.end.as_ref().filter(|(seq, ..)| *seq > tried);
        let end = end.map(|(seq, frame, until)| (*seq, frame, *until));
        let next = progress.into_iter().chain(end).find(|(_, _, until)| *until > now);
        next.map(|(seq, frame, until)| (seq, Arc::clone(frame), until.min(now + self.push_timeout)))
    }

    /// Goes on with what is being sent, until one frame has arrived or failed; without any, forever.
    ///
    /// Dropped before that, it has lost nothing.
    pub(crate) async fn advance(&mut self) {
        let Some(Sent { to, seq, outcome }) = self.sends.next().await else {
            return std::future::pending().await;
        };
        self.sending.remove(&to);
        let is_end = self.end.as_ref().is_some_and(|(end, ..)| *end == seq);
        match outcome.map_err(|error| (error.kind(), error)) {
            Ok(()) if is_end => {
                self.delivered.insert(to.clone());
            }
            Ok(()) => {}
            Err((SendErrorKind::Gone, _)) => {
                tracing::info!(request = %self.key, connection = %to, "the subscriber is gone");
                self.gone.insert(to.clone());
            }
            Err((SendErrorKind::Refused, error)) => {
                tracing::error!(request = %self.key, connection = %to, error = %Causes(&error), "refused for good");
                if is_end {
                    self.delivered.insert(to.clone());
                }
            }
            // It may have arrived: progress is not said twice under one number. What is newer goes at once.
            Err((SendErrorKind::Unanswered, error)) if !is_end => {
                tracing::warn!(request = %self.key, connection = %to, error = %Causes(&error), "perhaps not pushed");
            }
            Err((SendErrorKind::Unavailable | SendErrorKind::Unanswered, error)) => {
                tracing::warn!(request = %self.key, connection = %to, error = %Causes(&error), "not pushed");
                // Sent again when the lease is renewed, or while the end is told; something newer goes at once.
                if self.next_for(&to).is_none() {
                    self.tried.remove(&to);
                    return;
                }
            }
        }
        self.send_next(to);
    }

    /// Goes on with what is being sent for as long as some other work takes, which begins first.
    pub(crate) async fn advance_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.advance() => {}
            }
        }
    }

    /// Goes on with what is being sent until all of it has arrived or failed, or that long.
    pub(crate) async fn flush(&mut self, until: Instant) {
        while !self.sends.is_empty() {
            tokio::select! {
                biased;
                // There are only so many to come: what has arrived by then counts.
                () = self.advance() => {}
                () = sleep_until(until) => return,
            }
        }
    }

    /// Sends the terminal frame to everyone who listens, again to those whom it does not reach at once, and
    /// returns who has it, or will never need it.
    pub(crate) async fn deliver(
        mut self,
        seq: Seq,
        frame: String,
        until: Instant,
        subscribers: Vec<ConnectionId>,
    ) -> Vec<ConnectionId> {
        // Who has come to listen since the last write knows of the progress from a snapshot, or of the end: nothing of it
        // may follow that.
        for newcomer in subscribers.iter().filter(|id| !self.subscribers.contains(id)) {
            self.seen.insert(newcomer.clone(), Seq::from_stored(u64::MAX));
        }
        self.subscribers = subscribers;
        self.end = Some((seq, frame.into(), until));
        self.send_to_all();
        let mut retry_at = Instant::now() + Self::RETRY_INTERVAL;
        while !self.subscribers.iter().all(|id| self.is_done_with(id)) {
            tokio::select! {
                biased;
                // Each ends, and none is begun again before its time: the others have their turns.
                () = self.advance() => {}
                () = sleep_until(until) => break,
                () = sleep_until(retry_at) => {
                    // What was told of its progress in vain is told of the end alone.
                    self.progress = None;
                    self.send_to_all();
                    retry_at = Instant::now() + Self::RETRY_INTERVAL;
                }
            }
        }
        if bugs::is(Bug::DeliveryAssumed) {
            return self.subscribers;
        }
        self.subscribers.iter().filter(|id| self.is_done_with(id)).cloned().collect()
    }

    fn is_done_with(&self, id: &ConnectionId) -> bool {
        self.delivered.contains(id) || self.gone.contains(id)
    }
}
