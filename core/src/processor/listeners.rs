//! The clients that are told of one request, each at its own pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connections::{Connections, SendError, SendErrorKind};
use crate::ids::{ConnectionId, RequestKey};
use crate::protocol::Seq;
use crate::telemetry::Causes;

/// Sends frames to a request's subscribers.
///
/// Frames to one connection are serial. Who takes longer than others misses what came meanwhile, and is sent the
/// latest then: nobody waits for anybody else.
pub(super) struct Listeners<'a, P> {
    connections: &'a P,
    key: RequestKey,
    subscribers: Vec<ConnectionId>,
    gone: BTreeSet<ConnectionId>,
    /// The latest frame, and until when it may be sent.
    latest: Option<(Seq, Arc<str>, Instant)>,
    /// The last frame that was sent to each, whether it arrived or not.
    tried: BTreeMap<ConnectionId, Seq>,
    /// Who has the latest frame, or will never need it.
    told: BTreeSet<ConnectionId>,
    sending: BTreeSet<ConnectionId>,
    sends: FuturesUnordered<BoxFuture<'a, Sent>>,
}

struct Sent {
    to: ConnectionId,
    seq: Seq,
    outcome: Result<(), SendError>,
}

impl<'a, P: Connections> Listeners<'a, P> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(250);

    pub(super) fn new(connections: &'a P, key: RequestKey, subscribers: Vec<ConnectionId>) -> Self {
        Self {
            connections,
            key,
            subscribers,
            gone: BTreeSet::new(),
            latest: None,
            tried: BTreeMap::new(),
            told: BTreeSet::new(),
            sending: BTreeSet::new(),
            sends: FuturesUnordered::new(),
        }
    }

    /// Takes over who is listening, as a stored write has found it.
    pub(super) fn update(&mut self, subscribers: Vec<ConnectionId>) {
        self.subscribers = subscribers;
    }

    /// Starts to send a frame to everyone who is not busy with an earlier one; `until` then, it is given up.
    pub(super) fn offer(&mut self, seq: Seq, frame: String, until: Instant) {
        self.latest = Some((seq, frame.into(), until));
        self.told.clear();
        for to in self.subscribers.clone() {
            self.send_latest(to);
        }
    }

    fn send_latest(&mut self, to: ConnectionId) {
        let Some((seq, frame, until)) = self.latest.clone() else { return };
        let up_to_date = self.tried.get(&to).is_some_and(|tried| *tried >= seq);
        if up_to_date || until <= Instant::now() || self.gone.contains(&to) || self.sending.contains(&to) {
            return;
        }
        self.tried.insert(to.clone(), seq);
        self.sending.insert(to.clone());
        let connections = self.connections;
        self.sends.push(Box::pin(async move {
            let sent = timeout_at(until, connections.send(&to, &frame)).await;
            let outcome = sent.unwrap_or_else(|_| Err(SendError::new(SendErrorKind::Unavailable)));
            Sent { to, seq, outcome }
        }));
    }

    /// Goes on with what is being sent, until one frame has arrived or failed; without any, forever.
    pub(super) async fn advance(&mut self) {
        let Some(Sent { to, seq, outcome }) = self.sends.next().await else {
            return std::future::pending().await;
        };
        self.sending.remove(&to);
        let is_latest = self.latest.as_ref().is_some_and(|(latest, ..)| *latest == seq);
        match outcome.map_err(|error| (error.kind(), error)) {
            Ok(()) if is_latest => {
                self.told.insert(to.clone());
            }
            Ok(()) => {}
            Err((SendErrorKind::Gone, _)) => {
                tracing::info!(request = %self.key, connection = %to, "the subscriber is gone");
                self.gone.insert(to.clone());
            }
            Err((SendErrorKind::Refused, error)) => {
                tracing::error!(request = %self.key, connection = %to, error = %Causes(&error), "refused for good");
                if is_latest {
                    self.told.insert(to.clone());
                }
            }
            Err((SendErrorKind::Unavailable, error)) => {
                tracing::warn!(request = %self.key, connection = %to, error = %Causes(&error), "not pushed");
            }
        }
        if self.subscribers.contains(&to) {
            self.send_latest(to);
        }
    }

    /// Waits until the latest frame has arrived at, or failed for, everyone.
    pub(super) async fn flush(&mut self) {
        while !self.sends.is_empty() {
            self.advance().await;
        }
    }

    /// Sends the last frame to everyone, again to those whom it does not reach at once, and returns
    /// who has it, or will never need it.
    pub(super) async fn tell(mut self, seq: Seq, frame: String, until: Instant) -> Vec<ConnectionId> {
        self.offer(seq, frame, until);
        loop {
            self.flush().await;
            let left: Vec<_> = self.subscribers.iter().filter(|id| !self.is_done_with(id)).cloned().collect();
            if left.is_empty() || Instant::now() + Self::RETRY_INTERVAL >= until {
                break;
            }
            sleep(Self::RETRY_INTERVAL).await;
            for to in left {
                self.tried.remove(&to);
                self.send_latest(to);
            }
        }
        self.subscribers.iter().filter(|id| self.is_done_with(id)).cloned().collect()
    }

    fn is_done_with(&self, id: &ConnectionId) -> bool {
        self.told.contains(id) || self.gone.contains(id)
    }
}
