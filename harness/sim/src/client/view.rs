//! The requests that a simulated client knows, and the messages that become due because of them: resends and
//! subscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use streamer::protocol::{ErrorCode, Frame, Seq};
use tokio::time::Instant;

/// State of the requests of one simulated client.
#[derive(Debug)]
pub(super) struct View {
    /// Requests that were acknowledged, or about which a frame was received, by request id.
    known: BTreeMap<String, KnownRequest>,
    /// Requests that were sent and have no answer yet, by request id.
    unanswered: BTreeMap<String, Unanswered>,
    /// Subscribe messages that have no answer yet. Key: the message's id. Value: the id of the request to
    /// subscribe to.
    subscribing: BTreeMap<String, String>,
    /// Whether the client resends an unanswered message.
    resends: bool,
    /// True after the world's faults have ended. From then on, the client subscribes again to a request about
    /// which it receives no frame for `SILENCE`.
    pub(super) faults_are_over: bool,
}

/// State of one request, computed from the frames that the client has received.
#[derive(Debug, Default)]
struct KnownRequest {
    /// Highest sequence number received about the request.
    seq: Seq,
    /// Whether the client has received the terminal frame.
    has_ended: bool,
    /// Time at which the client subscribes to the request; `None` if no subscription is due.
    subscribe_at: Option<Instant>,
}

/// A sent request that has no answer yet.
#[derive(Debug)]
struct Unanswered {
    text: String,
    /// Number of times that the message was sent, including the first.
    times: u32,
    /// Time at which the message is resent, or dropped if it may not be resent.
    again_at: Instant,
}

/// A message that a client sends without a step of its plan.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum DueMessage {
    /// Subscribe to the request of this id.
    Subscribe(String),
    /// Send this message again.
    Resend(String),
}

impl View {
    /// Time after which a sent message counts as unanswered. The gateway itself ends an integration after
    /// 29 s.
    const ANSWER_TIME: Duration = Duration::from_secs(30);
    /// Delay before a message that was refused with a transient error is sent again.
    const PAUSE: Duration = Duration::from_secs(5);
    /// Maximum number of times that one message is sent, including the first.
    const MAX_SENDS: u32 = 8;
    /// Time without a frame about an open request, once faults have ended, after which the client subscribes
    /// to the request again.
    const SILENCE: Duration = Duration::from_mins(2);

    pub(super) const fn new(resends: bool) -> Self {
        Self {
            known: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            resends,
            faults_are_over: false,
        }
    }

    /// Returns true if each sent message was answered or abandoned, and each known request is terminal.
    pub(super) fn is_done(&self) -> bool {
        self.unanswered.is_empty() && self.known.values().all(|known| known.has_ended)
    }

    /// Returns the highest sequence number received about a request, or 0 if no frame was received.
    pub(super) fn seen(&self, id: &str) -> Seq {
        self.known.get(id).map(|known| known.seq).unwrap_or_default()
    }

    /// Records that a request was sent.
    pub(super) fn sent(&mut self, id: &str, text: String, now: Instant) {
        let unanswered = Unanswered { text, times: 1, again_at: now + Self::ANSWER_TIME };
        self.unanswered.insert(id.to_owned(), unanswered);
    }

    /// Records that a subscribe message for the request `id` was sent, under the message id `message_id`.
    pub(super) fn subscribing(&mut self, message_id: String, id: &str, now: Instant) {
        self.subscribing.insert(message_id, id.to_owned());
        if let Some(known) = self.known.get_mut(id) {
            known.subscribe_at = self.faults_are_over.then(|| now + Self::SILENCE);
        }
    }

    /// Records that the client is connected: subscriptions to open requests, and resends of unanswered
    /// messages, are due immediately.
    pub(super) fn connected(&mut self, now: Instant) {
        for known in self.known.values_mut().filter(|known| !known.has_ended) {
            known.subscribe_at = Some(now);
        }
        for asked in self.unanswered.values_mut() {
            asked.again_at = now;
        }
    }

    /// Records that the client has lost its connection. Its open subscribe messages will not be answered, so
    /// they are forgotten. A client that does not resend also forgets its unanswered requests.
    pub(super) fn disconnected(&mut self) {
        self.subscribing.clear();
        if !self.resends {
            self.unanswered.clear();
        }
    }

    /// Returns the time at which the next message is due, or `None` if no message is scheduled.
    pub(super) fn due(&self) -> Option<Instant> {
        let subscribe_at = self.known.values().filter_map(|known| known.subscribe_at);
        subscribe_at.chain(self.unanswered.values().map(|asked| asked.again_at)).min()
    }

    /// Returns the next message that is due at `now`. If a due message may not be resent, drops the message
    /// and returns `None`.
    pub(super) fn next(&mut self, now: Instant) -> Option<DueMessage> {
        let is_due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some((id, known)) = self.known.iter_mut().find(|(_, known)| is_due(&known.subscribe_at)) {
            known.subscribe_at = None;
            return Some(DueMessage::Subscribe(id.clone()));
        }
        let (id, asked) = self.unanswered.iter_mut().find(|(_, asked)| asked.again_at <= now)?;
        if self.resends && asked.times < Self::MAX_SENDS {
            asked.times += 1;
            asked.again_at = now + Self::ANSWER_TIME;
            return Some(DueMessage::Resend(asked.text.clone()));
        }
        let id = id.clone();
        self.unanswered.remove(&id);
        None
    }

    /// Updates the view from a received frame. Returns false if the connection can no longer be used.
    pub(super) fn receive(&mut self, frame: &Frame, now: Instant) -> bool {
        let Some(id) = frame.request_id().map(|id| id.as_str()) else { return true };
        match frame {
            Frame::Acknowledgment { .. } => {
                self.unanswered.remove(id);
                self.update(id, Seq::default(), false, now);
            }
            Frame::Progress { seq, .. } => self.update(id, *seq, false, now),
            Frame::Complete { seq, .. } | Frame::Error { seq: Some(seq), .. } => {
                self.unanswered.remove(id);
                self.update(id, *seq, true, now);
            }
            Frame::Response { success, .. } => {
                self.unanswered.remove(id);
                if let Some(about) = self.subscribing.remove(id)
                    && *success
                {
                    self.update(&about, Seq::default(), false, now);
                }
            }
            Frame::Error { seq: None, error, .. } => return self.refused(id, &error.code, now),
        }
        true
    }

    /// Updates a known request from a frame. A terminal frame does not count if its sequence number is lower
    /// than one received before, and no frame counts after the terminal frame.
    fn update(&mut self, id: &str, seq: Seq, is_terminal: bool, now: Instant) {
        let known = self.known.entry(id.to_owned()).or_default();
        if known.has_ended {
            return;
        }
        let is_old = seq < known.seq;
        known.has_ended |= is_terminal && !is_old;
        known.seq = known.seq.max(seq);
        // A subscription that is already due stays due, because this frame may belong to an earlier
        // subscription.
        if known.has_ended {
            known.subscribe_at = None;
        } else if self.faults_are_over && known.subscribe_at.is_none_or(|at| at > now) {
            known.subscribe_at = Some(now + Self::SILENCE);
        }
    }

    /// Handles an error that answers a message. Returns false if the connection can no longer be used.
    fn refused(&mut self, id: &str, code: &ErrorCode, now: Instant) -> bool {
        if *code == ErrorCode::Unauthorized {
            return false;
        }
        let is_transient =
            [ErrorCode::InternalError, ErrorCode::Timeout, ErrorCode::RateLimited].contains(code);
        if let Some(about) = self.subscribing.remove(id) {
            if let Some(known) = self.known.get_mut(&about).filter(|known| !known.has_ended && is_transient) {
                known.subscribe_at = Some(now + Self::PAUSE);
            }
        } else if !is_transient {
            self.unanswered.remove(id);
        } else if let Some(asked) = self.unanswered.get_mut(id) {
            asked.again_at = now + Self::PAUSE;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};
    use streamer::ids::RequestId;
    use streamer::protocol::ErrorBody;

    use super::*;

    fn acknowledgment() -> Frame {
        Frame::Acknowledgment {
            request_id: RequestId::new("r1"),
            status: "queued".into(),
            message: String::new(),
        }
    }

    fn progress(seq: u64) -> Frame {
        Frame::Progress {
            request_id: RequestId::new("r1"),
            percentage: 1.0,
            message: String::new(),
            timestamp: 0,
            metadata: Map::new(),
            seq: Seq::from_stored(seq),
        }
    }

    fn complete(seq: u64) -> Frame {
        let (request_id, seq) = (RequestId::new("r1"), Seq::from_stored(seq));
        Frame::Complete { request_id, success: true, result: Value::Null, timestamp: 0, seq }
    }

    fn refusal(id: &str, code: ErrorCode) -> Frame {
        let (request_id, error) = (Some(RequestId::new(id)), ErrorBody::new(code, ""));
        Frame::Error { request_id, error, timestamp: 0, seq: None }
    }

    fn view_of_one_request(resends: bool) -> (View, Instant) {
        let (mut view, now) = (View::new(resends), Instant::now());
        view.sent("r1", "text".into(), now);
        (view, now)
    }

    #[test]
    fn client_waits_for_terminal_frames_of_acknowledged_requests_only() {
        let (mut view, now) = view_of_one_request(true);
        assert!(!view.is_done(), "an unanswered request keeps the client waiting");
        view.receive(&acknowledgment(), now);
        assert!(!view.is_done() && view.unanswered.is_empty());
        view.receive(&progress(7), now);
        view.receive(&complete(6), now);
        assert!(!view.is_done(), "a terminal frame with an older sequence number is ignored");
        view.receive(&complete(7), now);
        view.receive(&progress(9), now);
        assert!(view.is_done());
        assert_eq!(view.seen("r1"), Seq::from_stored(7));

        let (mut view, now) = view_of_one_request(true);
        view.receive(&refusal("r1", ErrorCode::Conflict), now);
        assert!(view.is_done());
        assert_eq!(view.due(), None);
    }

    #[test]
    fn unanswered_message_is_resent_a_limited_number_of_times() {
        let (mut view, now) = view_of_one_request(true);
        assert_eq!(view.next(now), None);
        view.receive(&refusal("r1", ErrorCode::InternalError), now);
        assert_eq!(view.due(), Some(now + View::PAUSE));
        let mut at = now + View::PAUSE;
        for _ in 1..View::MAX_SENDS {
            assert_eq!(view.next(at), Some(DueMessage::Resend("text".into())));
            assert_eq!(view.due(), Some(at + View::ANSWER_TIME));
            at += View::ANSWER_TIME;
        }
        assert_eq!(view.next(at), None);
        assert!(view.is_done(), "the message is dropped after the last resend");

        let (mut view, _) = view_of_one_request(true);
        view.disconnected();
        view.connected(now);
        assert_eq!(view.next(now), Some(DueMessage::Resend("text".into())));
        let (mut view, _) = view_of_one_request(false);
        view.disconnected();
        assert!(view.is_done(), "a client that does not resend forgets unanswered messages");
    }

    #[test]
    fn reconnected_client_resumes_open_requests_from_the_last_sequence_number() {
        let (mut view, now) = view_of_one_request(true);
        view.receive(&acknowledgment(), now);
        view.receive(&progress(3), now);
        assert_eq!(view.due(), None);
        view.disconnected();
        view.connected(now);
        assert_eq!(view.next(now), Some(DueMessage::Subscribe("r1".into())));
        assert_eq!(view.seen("r1"), Seq::from_stored(3));
        view.subscribing("subscribe-1".into(), "r1", now);
        assert_eq!(view.due(), None, "no second subscription is due while faults may be injected");
        view.receive(&refusal("subscribe-1", ErrorCode::InternalError), now);
        assert_eq!(
            view.due(),
            Some(now + View::PAUSE),
            "a subscription refused with a transient error is due again"
        );

        view.faults_are_over = true;
        view.receive(&progress(4), now);
        let later = now + View::SILENCE;
        assert_eq!(view.due(), Some(later));
        assert_eq!(view.next(later), Some(DueMessage::Subscribe("r1".into())));
        view.receive(&complete(5), later);
        assert_eq!(view.due(), None);
    }

    #[test]
    fn client_waits_for_the_terminal_frame_only_if_its_subscription_succeeds() {
        let (mut view, now) = (View::new(true), Instant::now());
        view.subscribing("subscribe-1".into(), "r1", now);
        view.receive(&refusal("subscribe-1", ErrorCode::NotFound), now);
        assert!(view.is_done());
        view.subscribing("subscribe-2".into(), "r1", now);
        let (request_id, data) = (RequestId::new("subscribe-2"), Some(json!({})));
        view.receive(&Frame::Response { request_id, success: true, data, error: None }, now);
        assert!(!view.is_done());
        assert!(!view.receive(&refusal("status-3", ErrorCode::Unauthorized), now));
    }
}
