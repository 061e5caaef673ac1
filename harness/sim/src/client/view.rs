//! What a client knows of its requests, and what it does about them by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use streamer::protocol::{ErrorCode, Frame, Seq};
use tokio::time::Instant;

/// What a client knows of its requests.
#[derive(Debug)]
pub(super) struct View {
    /// The requests that it was told are taken, and those that it has heard of.
    known: BTreeMap<String, KnownRequest>,
    /// What it has asked for and has no answer to.
    unanswered: BTreeMap<String, Unanswered>,
    /// The subscriptions that it waits to have answered: each names the request that it is about.
    subscribing: BTreeMap<String, String>,
    /// Whether it sends again what was not answered.
    resends: bool,
    /// Whether nothing goes wrong any more: now it wants to know.
    pub(super) faults_are_over: bool,
}

/// What it knows of a request.
#[derive(Debug, Default)]
struct KnownRequest {
    /// The last number seen.
    seq: Seq,
    has_ended: bool,
    /// When it asks to be told of it, if it hears nothing until then.
    subscribe_at: Option<Instant>,
}

/// A message that has no answer yet.
#[derive(Debug)]
struct Unanswered {
    text: String,
    times: u32,
    /// When it is sent again.
    again_at: Instant,
}

/// What a client does by itself.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum DueMessage {
    /// Subscribes to this request.
    Subscribe(String),
    /// Sends this message again.
    Resend(String),
}

impl View {
    /// When it is taken that no answer comes: the gateway itself gives up after 29 s.
    const ANSWER_TIME: Duration = Duration::from_secs(30);
    /// How long it waits before it tries again what could not be done.
    const PAUSE: Duration = Duration::from_secs(5);
    /// How often it sends a message in all.
    const TIMES: u32 = 8;
    /// How long it waits for news of a request, once nothing goes wrong any more, before it asks to be told again.
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

    /// Whether it has heard the end of everything that it was promised one of, and has no more to say.
    pub(super) fn is_done(&self) -> bool {
        self.unanswered.is_empty() && self.known.values().all(|known| known.has_ended)
    }

    /// The last number that it has seen of a request.
    pub(super) fn seen(&self, id: &str) -> Seq {
        self.known.get(id).map(|known| known.seq).unwrap_or_default()
    }

    /// It has asked for something.
    pub(super) fn sent(&mut self, id: &str, text: String, now: Instant) {
        let unanswered = Unanswered { text, times: 1, again_at: now + Self::ANSWER_TIME };
        self.unanswered.insert(id.to_owned(), unanswered);
    }

    /// It has asked, by the message `aside`, to be told of a request.
    pub(super) fn subscribing(&mut self, aside: String, id: &str, now: Instant) {
        self.subscribing.insert(aside, id.to_owned());
        if let Some(known) = self.known.get_mut(id) {
            known.subscribe_at = self.faults_are_over.then(|| now + Self::SILENCE);
        }
    }

    /// It is connected: it goes on with what it waits for.
    pub(super) fn connected(&mut self, now: Instant) {
        for known in self.known.values_mut().filter(|known| !known.has_ended) {
            known.subscribe_at = Some(now);
        }
        for asked in self.unanswered.values_mut() {
            asked.again_at = now;
        }
    }

    /// It is not connected any more: what it has asked for over this connection is not answered.
    pub(super) fn disconnected(&mut self) {
        self.subscribing.clear();
        if !self.resends {
            self.unanswered.clear();
        }
    }

    /// When it does something by itself, if it hears nothing until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let subscribe_at = self.known.values().filter_map(|known| known.subscribe_at);
        subscribe_at.chain(self.unanswered.values().map(|asked| asked.again_at)).min()
    }

    /// What is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<DueMessage> {
        let is_due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some((id, known)) = self.known.iter_mut().find(|(_, known)| is_due(&known.subscribe_at)) {
            known.subscribe_at = None;
            return Some(DueMessage::Subscribe(id.clone()));
        }
        let (id, asked) = self.unanswered.iter_mut().find(|(_, asked)| asked.again_at <= now)?;
        if self.resends && asked.times < Self::TIMES {
            asked.times += 1;
            asked.again_at = now + Self::ANSWER_TIME;
            return Some(DueMessage::Resend(asked.text.clone()));
        }
        let id = id.clone();
        self.unanswered.remove(&id);
        None
    }

    /// Takes in a frame. Says whether the connection is good for more.
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

    /// There is news of a request. What is older than what it has seen is none, and nothing comes after the end.
    fn update(&mut self, id: &str, seq: Seq, is_end: bool, now: Instant) {
        let known = self.known.entry(id.to_owned()).or_default();
        if known.has_ended {
            return;
        }
        let is_old = seq < known.seq;
        known.has_ended |= is_end && !is_old;
        known.seq = known.seq.max(seq);
        // What it has not subscribed to yet it still has to: frames of before do not stand for those to come.
        if known.has_ended {
            known.subscribe_at = None;
        } else if self.faults_are_over && known.subscribe_at.is_none_or(|at| at > now) {
            known.subscribe_at = Some(now + Self::SILENCE);
        }
    }

    /// A message was refused. Says whether the connection is good for more.
    fn refused(&mut self, id: &str, code: &ErrorCode, now: Instant) -> bool {
        if *code == ErrorCode::Unauthorized {
            return false;
        }
        let is_passing =
            [ErrorCode::InternalError, ErrorCode::Timeout, ErrorCode::RateLimited].contains(code);
        if let Some(about) = self.subscribing.remove(id) {
            if let Some(known) = self.known.get_mut(&about).filter(|known| !known.has_ended && is_passing) {
                known.subscribe_at = Some(now + Self::PAUSE);
            }
        } else if !is_passing {
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
    fn it_waits_for_the_end_of_what_was_acknowledged_and_of_nothing_else() {
        let (mut view, now) = view_of_one_request(true);
        assert!(!view.is_done(), "it has no answer");
        view.receive(&acknowledgment(), now);
        assert!(!view.is_done() && view.unanswered.is_empty());
        view.receive(&progress(7), now);
        view.receive(&complete(6), now);
        assert!(!view.is_done(), "an end that is older than what it has seen is dropped");
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
    fn it_sends_again_what_was_not_answered_so_often_and_no_more() {
        let (mut view, now) = view_of_one_request(true);
        assert_eq!(view.next(now), None);
        view.receive(&refusal("r1", ErrorCode::InternalError), now);
        assert_eq!(view.due(), Some(now + View::PAUSE));
        let mut at = now + View::PAUSE;
        for _ in 1..View::TIMES {
            assert_eq!(view.next(at), Some(DueMessage::Resend("text".into())));
            assert_eq!(view.due(), Some(at + View::ANSWER_TIME));
            at += View::ANSWER_TIME;
        }
        assert_eq!(view.next(at), None);
        assert!(view.is_done(), "it gives up");

        let (mut view, _) = view_of_one_request(true);
        view.disconnected();
        view.connected(now);
        assert_eq!(view.next(now), Some(DueMessage::Resend("text".into())));
        let (mut view, _) = view_of_one_request(false);
        view.disconnected();
        assert!(view.is_done(), "who does not insist forgets");
    }

    #[test]
    fn it_resumes_what_has_not_ended_from_where_it_was() {
        let (mut view, now) = view_of_one_request(true);
        view.receive(&acknowledgment(), now);
        view.receive(&progress(3), now);
        assert_eq!(view.due(), None);
        view.disconnected();
        view.connected(now);
        assert_eq!(view.next(now), Some(DueMessage::Subscribe("r1".into())));
        assert_eq!(view.seen("r1"), Seq::from_stored(3));
        view.subscribing("subscribe-1".into(), "r1", now);
        assert_eq!(view.due(), None, "while all goes wrong it does not ask twice");
        view.receive(&refusal("subscribe-1", ErrorCode::InternalError), now);
        assert_eq!(view.due(), Some(now + View::PAUSE), "but what was refused for a while was not asked");

        view.faults_are_over = true;
        view.receive(&progress(4), now);
        let later = now + View::SILENCE;
        assert_eq!(view.due(), Some(later));
        assert_eq!(view.next(later), Some(DueMessage::Subscribe("r1".into())));
        view.receive(&complete(5), later);
        assert_eq!(view.due(), None);
    }

    #[test]
    fn who_is_told_of_anothers_request_waits_for_its_end_and_who_is_not_does_not() {
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
