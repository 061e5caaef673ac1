//! Sends the frames of one request to its subscribers, to each subscriber at its own pace.

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
/// At most one frame is in flight per connection. A slow connection skips to the latest progress, so that a
/// slow subscriber delays no other subscriber.
pub(crate) struct FanOut<'a, P> {
    connections: &'a P,
    key: RequestKey,
    /// Timeout for sending one frame to one client.
    push_timeout: Duration,
    /// Instant after which no progress is sent, because the attempt's lease may have expired.
    lease_holds_until: Instant,
    /// The connections that receive the request's frames.
    subscribers: Vec<ConnectionId>,
    /// Sequence number and text of the latest progress frame.
    progress: Option<(Seq, Arc<str>)>,
    /// Sequence number and text of the terminal frame, and the instant until which it may be sent.
    terminal: Option<(Seq, Arc<str>, Instant)>,
    /// Sequence number of the last frame sent to each connection; the entry is removed when that frame must be
    /// sent again.
    tried: BTreeMap<ConnectionId, Seq>,
    /// Sequence number up to which each subscriber already has the progress, for example from a snapshot.
    seen: BTreeMap<ConnectionId, Seq>,
    /// Connections with a frame in flight.
    sending: BTreeSet<ConnectionId>,
    sends: FuturesUnordered<BoxFuture<'a, SendResult>>,
    /// Connections that have the terminal frame, or whose terminal frame the gateway has refused for good.
    delivered: BTreeSet<ConnectionId>,
    /// Connections that no longer exist; no more frames are sent to them.
    gone: BTreeSet<ConnectionId>,
}

/// Result of sending one frame to one connection.
struct SendResult {
    to: ConnectionId,
    seq: Seq,
    outcome: Result<(), SendError>,
}

impl<'a, P: Connections> FanOut<'a, P> {
    /// Interval at which a failed terminal frame is sent again.
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
            terminal: None,
            tried: BTreeMap::new(),
            seen: BTreeMap::new(),
            sending: BTreeSet::new(),
            sends: FuturesUnordered::new(),
            delivered: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Applies the result of a successful write, which renewed the lease and returned the current subscribers.
    /// Starts to send the latest progress to each subscriber that lacks it.
    pub(crate) fn renew(&mut self, lease_holds_until: Instant, subscribers: Vec<Subscriber>) {
        self.lease_holds_until = lease_holds_until;
        self.seen =
            subscribers.iter().map(|subscriber| (subscriber.connection.clone(), subscriber.seen)).collect();
        self.subscribers = subscribers.into_iter().map(|subscriber| subscriber.connection).collect();
        self.send_to_all();
    }

    /// Sets the latest progress frame, and starts to send it to each subscriber that has no frame in flight.
    pub(crate) fn offer(&mut self, seq: Seq, frame: String) {
        self.progress = Some((seq, frame.into()));
        self.send_to_all();
    }

    fn send_to_all(&mut self) {
        for to in self.subscribers.clone() {
            self.send_next(to);
        }
    }

    /// Starts to send the next frame to a connection, if a frame is left to send and no earlier frame is in
    /// flight.
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
            SendResult { to, seq, outcome }
        }));
    }

    /// Returns the next frame for a connection: the latest progress, and after it the terminal frame.
    ///
    /// Skips a frame that was already sent to the connection, and a frame whose latest send time has passed.
    fn next_for(&self, to: &ConnectionId) -> Option<(Seq, Arc<str>, Instant)> {
        let (now, tried) = (Instant::now(), self.tried.get(to).copied().unwrap_or_default());
        // `seen` limits progress only: every subscriber is sent the terminal frame.
        let known = tried.max(self.seen.get(to).copied().unwrap_or_default());
        let progress = self.progress.as_ref().filter(|(seq, _)| *seq > known);
        let progress = progress.map(|(seq, frame)| (*seq, frame, self.lease_holds_until));
        let terminal = self.terminal.as_ref().filter(|(seq, ..)| *seq > tried);
        let terminal = terminal.map(|(seq, frame, until)| (*seq, frame, *until));
        let next = progress.into_iter().chain(terminal).find(|(_, _, until)| *until > now);
        next.map(|(seq, frame, until)| (seq, Arc::clone(frame), until.min(now + self.push_timeout)))
    }

    /// Waits until one send has finished, and starts the next send to the same connection. Waits forever if no
    /// frame is in flight.
    ///
    /// This method is cancel safe: a dropped future loses no frame.
    pub(crate) async fn advance(&mut self) {
        let Some(SendResult { to, seq, outcome }) = self.sends.next().await else {
            return std::future::pending().await;
        };
        self.sending.remove(&to);
        let is_terminal = self.terminal.as_ref().is_some_and(|(terminal, ..)| *terminal == seq);
        match outcome.map_err(|error| (error.kind(), error)) {
            Ok(()) if is_terminal => {
                self.delivered.insert(to.clone());
            }
            Ok(()) => {}
            Err((SendErrorKind::Gone, _)) => {
                tracing::info!(
                    request = %self.key, connection = %to,
                    "subscriber connection gone; no more frames sent"
                );
                self.gone.insert(to.clone());
            }
            Err((SendErrorKind::Refused, error)) => {
                tracing::error!(
                    request = %self.key, connection = %to, error = %Causes(&error),
                    "frame refused by the gateway; not retried"
                );
                if is_terminal {
                    self.delivered.insert(to.clone());
                }
            }
            // Not sent again, because the frame may have arrived, and no progress is sent twice under one
            // sequence number. Newer progress is sent immediately.
            Err((SendErrorKind::Unanswered, error)) if !is_terminal => {
                tracing::warn!(
                    request = %self.key, connection = %to, error = %Causes(&error),
                    "progress push unacknowledged; not retried"
                );
            }
            Err((SendErrorKind::Unavailable | SendErrorKind::Unanswered, error)) => {
                tracing::warn!(
                    request = %self.key, connection = %to, error = %Causes(&error),
                    "push failed; frame may be sent again"
                );
                // The same frame is sent again at the next lease renewal, or during the terminal delivery. A
                // newer frame is sent immediately instead.
                if self.next_for(&to).is_none() {
                    self.tried.remove(&to);
                    return;
                }
            }
        }
        self.send_next(to);
    }

    /// Continues the sends in flight until `work` finishes. Each round polls `work` first.
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

    /// Continues the sends in flight until all have finished, or until the instant `until`.
    pub(crate) async fn flush(&mut self, until: Instant) {
        while !self.sends.is_empty() {
            tokio::select! {
                biased;
                // Polled first, so that sends that have finished by `until` still count. The number of sends is
                // bounded, so this branch does not run forever.
                () = self.advance() => {}
                () = sleep_until(until) => return,
            }
        }
    }

    /// Sends the terminal frame to every subscriber, with retries until `until`.
    ///
    /// Returns the subscribers that have the terminal frame or can never receive it.
    pub(crate) async fn deliver(
        mut self,
        seq: Seq,
        frame: String,
        until: Instant,
        subscribers: Vec<ConnectionId>,
    ) -> Vec<ConnectionId> {
        // A connection that subscribed after the attempt's last renewal has received a snapshot or the terminal
        // frame. The connection must receive no older progress, so all progress counts as seen.
        for new in subscribers.iter().filter(|id| !self.subscribers.contains(id)) {
            self.seen.insert(new.clone(), Seq::from_stored(u64::MAX));
        }
        self.subscribers = subscribers;
        self.terminal = Some((seq, frame.into(), until));
        self.send_to_all();
        let mut retry_at = Instant::now() + Self::RETRY_INTERVAL;
        while !self.subscribers.iter().all(|id| self.needs_nothing(id)) {
            tokio::select! {
                biased;
                // This branch cannot starve the other branches: each send finishes, and a failed send restarts
                // only at `retry_at`.
                () = self.advance() => {}
                () = sleep_until(until) => break,
                () = sleep_until(retry_at) => {
                    // A retry sends the terminal frame only, and no more progress.
                    self.progress = None;
                    self.send_to_all();
                    retry_at = Instant::now() + Self::RETRY_INTERVAL;
                }
            }
        }
        if bugs::is(Bug::DeliveryAssumed) {
            return self.subscribers;
        }
        self.subscribers.iter().filter(|id| self.needs_nothing(id)).cloned().collect()
    }

    /// Returns whether a connection has the terminal frame or can never receive it.
    fn needs_nothing(&self, id: &ConnectionId) -> bool {
        self.delivered.contains(id) || self.gone.contains(id)
    }
}
