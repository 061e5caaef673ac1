//! What clients send, and what they hear.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::protocol::Message;
use streamer::store::Status;

use super::posts::Head;
use super::{Checker, Owner, rules};
use crate::plan::Act;
use crate::record::ClientEvent;

/// A client, as it sees the world.
#[derive(Debug)]
pub(super) struct ClientView {
    pub(super) owner: Owner,
    /// What it asked about a request, by the id of the question.
    questions: BTreeMap<String, Question>,
    /// How many messages it has sent of which nobody can make out an id.
    nameless: u32,
    /// The requests of whose end it has heard, over whichever connection.
    pub(super) ended: BTreeSet<String>,
    pub(super) session: Session,
    pub(super) is_connected: bool,
}

/// One connection, from its client's side.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The last number heard of each request.
    seqs: BTreeMap<String, u64>,
    /// The requests that it is known to listen to, and since when.
    pub(super) listens: BTreeMap<String, Timestamp>,
    /// The requests of whose end it has heard.
    ended: BTreeSet<String>,
}

/// A question about a request.
#[derive(Clone, Debug)]
struct Question {
    action: String,
    about: String,
    /// Whether the request was stored when it was asked.
    was_there: bool,
}

/// What was sent under an id.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The actions and payloads: more than one is a conflict.
    pub(super) as_what: BTreeSet<(String, String)>,
    /// Whether one of them may be answered without being queued.
    pub(super) may_be_quick: bool,
    /// Whether its end was asked for.
    pub(super) is_cancelled: bool,
    /// How many messages were sent by which somebody may have come to listen.
    pub(super) times: u32,
}

impl ClientView {
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            questions: BTreeMap::new(),
            nameless: 0,
            ended: BTreeSet::new(),
            session: Session::default(),
            is_connected: false,
        }
    }
}

/// The built-in actions that are about a request.
const QUESTIONS: [&str; 3] = ["status", "subscribe", "cancel"];

/// The request that a built-in action is about.
fn about(message: &Message) -> Option<&str> {
    let about = message.payload.get("request_id").and_then(Value::as_str);
    about.filter(|_| QUESTIONS.contains(&message.action.as_str()))
}

impl Checker {
    pub(super) fn client(&mut self, at: Timestamp, number: usize, event: &ClientEvent) {
        let Some(client) = self.clients.get_mut(number) else { return };
        match event {
            ClientEvent::Connected => {
                client.session = Session::default();
                client.is_connected = true;
            }
            ClientEvent::Closed(_) | ClientEvent::Left => client.is_connected = false,
            ClientEvent::Refused(_) => {}
            ClientEvent::Sent(text) => self.sent(number, text),
            ClientEvent::Got(text) => self.got(at, number, text),
        }
    }

    /// What a client of the plan may send at any time: it can arrive before its client knows that it is sent.
    pub(super) fn may_ask(&mut self, owner: &Owner, act: &Act) {
        match act {
            Act::Ask { id, action, payload } => self.asks(owner, id, action, payload),
            Act::Cancel { id } => self.asked_under(owner, id).is_cancelled = true,
            Act::Say { text } => {
                if let Ok(message) = Message::parse(text) {
                    self.says(owner, &message);
                }
            }
            Act::Connect
            | Act::Close
            | Act::Vanish
            | Act::CutOff
            | Act::Subscribe { .. }
            | Act::Status { .. } => {}
        }
    }

    fn asked_under(&mut self, owner: &Owner, id: &str) -> &mut Asked {
        self.asked.entry(owner.key(id)).or_default()
    }

    fn asks(&mut self, owner: &Owner, id: &str, action: &str, payload: &Value) {
        let threshold = self.setting.async_threshold_ms;
        let asked = self.asked_under(owner, id);
        let estimate = payload.get("estimate_ms").and_then(Value::as_u64);
        asked.may_be_quick |= estimate.is_none_or(|estimate| estimate <= threshold);
        asked.as_what.insert((action.to_owned(), payload.to_string()));
    }

    fn says(&mut self, owner: &Owner, message: &Message) {
        match (&message.id, about(message)) {
            (None, _) => {
                self.asks_without_id.insert(owner.clone());
            }
            (Some(_), Some(about)) if message.action == "cancel" => {
                self.asked_under(owner, about).is_cancelled = true;
            }
            (Some(_), Some(about)) => self.asked_under(owner, about).times += 1,
            (Some(id), None) => {
                self.asks(owner, id.as_str(), &message.action, &message.payload);
                self.asked_under(owner, id.as_str()).times += 1;
            }
        }
    }

    fn sent(&mut self, number: usize, text: &str) {
        self.ledger.messages += 1;
        let owner = self.clients[number].owner.clone();
        let message = Message::parse(text);
        let id = match &message {
            Ok(message) => message.id.as_ref(),
            Err(rejected) => rejected.id.as_ref(),
        };
        self.clients[number].nameless += u32::from(id.is_none());
        let Ok(message) = message else { return };
        self.says(&owner, &message);
        if let (Some(id), Some(about)) = (&message.id, about(&message)) {
            let was_there = self.requests.contains_key(&owner.key(about));
            let question = Question { action: message.action.clone(), about: about.to_owned(), was_there };
            self.clients[number].questions.insert(id.as_str().to_owned(), question);
        }
    }

    fn got(&mut self, at: Timestamp, number: usize, text: &str) {
        let Some(head) = Head::of(text) else { return };
        let Some(id) = head.request_id.as_deref() else {
            if head.kind == "error" {
                self.nameless(at, number, text);
            }
            return;
        };
        match &*head.kind {
            "acknowledgment" => self.acknowledged(at, number, id, text),
            "progress" => self.heard(at, number, id, head.seq.unwrap_or_default(), text),
            "complete" | "error" if head.is_end() => self.heard_the_end(at, number, id, text),
            "response" => self.answered(at, number, id, text),
            "error" => self.refused(at, number, id, text),
            _ => {}
        }
    }

    fn key(&self, number: usize, id: &str) -> String {
        self.clients[number].owner.key(id)
    }

    fn nameless(&mut self, at: Timestamp, number: usize, text: &str) {
        let client = &mut self.clients[number];
        if let Some(left) = client.nameless.checked_sub(1) {
            client.nameless = left;
        } else {
            let message = format!("client {number} hears {text}, and has sent nothing without an id");
            self.found.broken(rules::ERRORS_NAME_REQUESTS, at, None, message);
        }
    }

    fn acknowledged(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let key = self.key(number, id);
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let status = frame["status"].as_str().unwrap_or_default();
        let known = Status::ALL.into_iter().find(|known| known.as_protocol() == status);
        let has_been = match (self.requests.get(&key), known) {
            (Some(life), Some(status)) => life.has_been(status),
            _ => false,
        };
        if !has_been {
            let message = format!("client {number} is told that it is {status:?}, which it has never been");
            self.found.broken(rules::ACKNOWLEDGED_IS_STORED, at, Some(&key), message);
        }
        self.clients[number].session.listens.entry(id.to_owned()).or_insert(at);
    }

    fn heard(&mut self, at: Timestamp, number: usize, id: &str, seq: u64, text: &str) {
        let key = self.key(number, id);
        let session = &mut self.clients[number].session;
        let last = session.seqs.entry(id.to_owned()).or_default();
        let is_late = seq <= *last || session.ended.contains(id);
        // What was on its way when its process stood still may come behind what a later one says: clients drop it.
        if is_late && !self.setting.may_be_late {
            let message = format!("client {number} hears {text} after number {last}, or the end");
            self.found.broken(rules::SEQ_RISES, at, Some(&key), message);
        }
        *last = seq.max(*last);
    }

    fn heard_the_end(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let key = self.key(number, id);
        let told = self.requests.get(&key).and_then(|life| life.terminal_frame.as_deref());
        if told != Some(text) {
            let message = format!("client {number} hears {text}, and its end is {told:?}");
            self.found.broken(rules::ONE_TERMINAL_FRAME, at, Some(&key), message);
        }
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let client = &mut self.clients[number];
        let last = client.session.seqs.get(id).copied();
        if !client.session.ended.contains(id) && last.is_some_and(|last| frame["seq"].as_u64() <= Some(last))
        {
            let message = format!("client {number} hears {text} after number {last:?}");
            self.found.broken(rules::SEQ_RISES, at, Some(&key), message);
        }
        client.session.ended.insert(id.to_owned());
        client.ended.insert(id.to_owned());
    }

    /// A response: of a quick request, or to a question about another, whose snapshot must be true.
    fn answered(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let client = &mut self.clients[number];
        let Some(question) = client.questions.get(id).cloned() else { return };
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if frame["success"] != true {
            return;
        }
        if question.action == "subscribe" {
            client.session.listens.insert(question.about.clone(), at);
        }
        let key = self.key(number, &question.about);
        let data = &frame["data"];
        let status = data["status"].as_str().unwrap_or_default();
        let known = Status::ALL.into_iter().find(|known| known.as_protocol() == status);
        let is_true = match (self.requests.get(&key), known) {
            (Some(life), Some(status)) => {
                let is_so = !status.is_terminal()
                    || (life.stand.status == status
                        && data["seq"] == life.stand.seq
                        && data.get("result").is_none_or(|result| Some(result) == life.result().as_ref()));
                data["request_id"] == question.about
                    && life.has_been(status)
                    && is_so
                    && data["seq"].as_u64().is_some_and(|seq| seq <= life.stand.seq)
            }
            _ => false,
        };
        if !is_true {
            let stand = self.requests.get(&key).map(|life| life.stand);
            let message =
                format!("client {number} asks {} and hears {data}: it is {stand:?}", question.action);
            self.found.broken(rules::SNAPSHOT_IS_TRUE, at, Some(&key), message);
        }
    }

    /// An error in answer to a message.
    fn refused(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let code = frame["error"]["code"].as_str().unwrap_or_default();
        let question = self.clients[number].questions.get(id).cloned();
        let (about, is_wrong) = match (code, question) {
            ("NOT_FOUND", Some(question)) => {
                let key = self.key(number, &question.about);
                let until = at + self.setting.skew;
                let is_there = self.requests.get(&key).is_some_and(|life| !life.has_expired(until));
                let is_wrong = question.was_there && is_there;
                (key, is_wrong)
            }
            ("CONFLICT", _) => {
                let key = self.key(number, id);
                let is_wrong = self.asked.get(&key).is_none_or(|asked| asked.as_what.len() < 2);
                (key, is_wrong)
            }
            _ => return,
        };
        if is_wrong {
            let message = format!("client {number} hears {text} without a reason");
            self.found.broken(rules::ID_IS_KNOWN, at, Some(&about), message);
        }
    }
}
