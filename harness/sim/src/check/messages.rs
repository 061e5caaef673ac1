//! Checks of the messages that clients send, and the frames that clients receive.

use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::protocol::Message;
use streamer::store::Status;

use super::client_model::{Query, SentRequest, Session};
use super::frame_header::FrameHeader;
use super::owner::Owner;
use super::rules;
use super::world_model::WorldModel;
use crate::event::ClientEvent;
use crate::plan::Act;

/// Built-in actions that concern a request.
const QUERY_ACTIONS: [&str; 3] = ["status", "subscribe", "cancel"];

/// Returns the id of the request that a built-in action concerns; `None` if the message has no such action.
fn about(message: &Message) -> Option<&str> {
    let about = message.payload.get("request_id").and_then(Value::as_str);
    about.filter(|_| QUERY_ACTIONS.contains(&message.action.as_str()))
}

impl WorldModel {
    pub(super) fn client_event(&mut self, at: Timestamp, number: usize, event: &ClientEvent) {
        let Some(client) = self.clients.get_mut(number) else { return };
        match event {
            ClientEvent::Connected => {
                client.session = Session::default();
                client.is_connected = true;
            }
            ClientEvent::Closed(_) | ClientEvent::Left => client.is_connected = false,
            ClientEvent::Refused(_) => {}
            ClientEvent::Sent(text) => self.note_sent(number, text),
            ClientEvent::Got(text) => self.received(at, number, text),
        }
    }

    /// Records a message of the plan before it is sent, because the message can arrive before its client
    /// records the send.
    pub(super) fn may_send(&mut self, owner: &Owner, act: &Act) {
        match act {
            Act::Request { id, action, payload } => self.note_request(owner, id, action, payload),
            Act::Cancel { id } => self.sent_under(owner, id).is_cancelled = true,
            Act::SendText { text } => {
                if let Ok(message) = Message::parse(text) {
                    self.note_message(owner, &message);
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

    fn sent_under(&mut self, owner: &Owner, id: &str) -> &mut SentRequest {
        self.sent.entry(owner.key(id)).or_default()
    }

    fn note_request(&mut self, owner: &Owner, id: &str, action: &str, payload: &Value) {
        let threshold = self.limits.async_threshold_ms;
        let request = self.sent_under(owner, id);
        let estimate = payload.get("estimate_ms").and_then(Value::as_u64);
        request.may_be_quick |= estimate.is_none_or(|estimate| estimate <= threshold);
        request.contents.insert((action.to_owned(), payload.to_string()));
    }

    fn note_message(&mut self, owner: &Owner, message: &Message) {
        match (&message.id, about(message)) {
            (None, _) => {
                self.senders_without_id.insert(owner.clone());
            }
            (Some(_), Some(about)) if message.action == "cancel" => {
                self.sent_under(owner, about).is_cancelled = true;
            }
            (Some(_), Some(about)) => {
                self.sent_under(owner, about);
            }
            (Some(id), None) => self.note_request(owner, id.as_str(), &message.action, &message.payload),
        }
    }

    fn note_sent(&mut self, number: usize, text: &str) {
        self.ledger.messages += 1;
        let owner = self.clients[number].owner.clone();
        let message = Message::parse(text);
        let id = match &message {
            Ok(message) => message.id.as_ref(),
            Err(rejected) => rejected.id.as_ref(),
        };
        self.clients[number].nameless += u32::from(id.is_none());
        let Ok(message) = message else { return };
        self.note_message(&owner, &message);
        if let (Some(id), Some(about)) = (&message.id, about(&message)) {
            let was_there = self.requests.contains_key(&owner.key(about));
            let query = Query { action: message.action.clone(), about: about.to_owned(), was_there };
            self.clients[number].queries.insert(id.as_str().to_owned(), query);
        }
    }

    fn received(&mut self, at: Timestamp, number: usize, text: &str) {
        let Some(header) = FrameHeader::of(text) else { return };
        let Some(id) = header.request_id.as_deref() else {
            if header.kind == "error" {
                self.check_error_without_id(at, number, text);
            }
            return;
        };
        match &*header.kind {
            "acknowledgment" => self.acknowledged(at, number, id, text),
            "progress" => self.progress_received(at, number, id, header.seq.unwrap_or_default(), text),
            "complete" | "error" if header.is_terminal() => {
                self.terminal_frame_received(at, number, id, text)
            }
            "response" => self.answered(at, number, id, text),
            "error" => self.refused(at, number, id, text),
            _ => {}
        }
    }

    fn key(&self, number: usize, id: &str) -> String {
        self.clients[number].owner.key(id)
    }

    fn check_error_without_id(&mut self, at: Timestamp, number: usize, text: &str) {
        let client = &mut self.clients[number];
        if let Some(left) = client.nameless.checked_sub(1) {
            client.nameless = left;
        } else {
            let message = format!("client {number} received {text}, but has sent no message without an id");
            self.found.broken(rules::ERRORS_NAME_REQUESTS, at, None, message);
        }
    }

    fn acknowledged(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let key = self.key(number, id);
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let status = frame["status"].as_str().unwrap_or_default();
        let known = Status::ALL.into_iter().find(|known| known.as_protocol() == status);
        let has_been = match (self.requests.get(&key), known) {
            (Some(request), Some(status)) => request.has_been(status),
            _ => false,
        };
        if !has_been {
            let message = format!(
                "client {number} received an acknowledgment with status {status:?}, which the request never had"
            );
            self.found.broken(rules::ACKNOWLEDGED_IS_STORED, at, Some(&key), message);
        }
        self.clients[number].session.subscribed.entry(id.to_owned()).or_insert(at);
    }

    fn progress_received(&mut self, at: Timestamp, number: usize, id: &str, seq: u64, text: &str) {
        let key = self.key(number, id);
        let session = &mut self.clients[number].session;
        let last = session.seqs.entry(id.to_owned()).or_default();
        let is_late = seq <= *last || session.ended.contains(id);
        // A frame that was in flight while its process was frozen may arrive after frames of a later attempt.
        // Clients drop such a frame.
        if is_late && !self.limits.may_be_late {
            let message = format!(
                "client {number} received {text} after sequence number {last}, or after the terminal frame"
            );
            self.found.broken(rules::SEQ_RISES, at, Some(&key), message);
        }
        *last = seq.max(*last);
    }

    fn terminal_frame_received(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let key = self.key(number, id);
        let first = self.requests.get(&key).and_then(|request| request.terminal_frame.as_deref());
        if first != Some(text) {
            let message = format!("client {number} received {text}, but the terminal frame is {first:?}");
            self.found.broken(rules::ONE_TERMINAL_FRAME, at, Some(&key), message);
        }
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let client = &mut self.clients[number];
        let last = client.session.seqs.get(id).copied();
        if !client.session.ended.contains(id) && last.is_some_and(|last| frame["seq"].as_u64() <= Some(last))
        {
            let message = format!("client {number} received {text} after sequence number {last:?}");
            self.found.broken(rules::SEQ_RISES, at, Some(&key), message);
        }
        client.session.ended.insert(id.to_owned());
        client.ended.insert(id.to_owned());
    }

    /// Checks a response. The response to a query holds a snapshot, which must match the request.
    fn answered(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let client = &mut self.clients[number];
        let Some(query) = client.queries.get(id).cloned() else { return };
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if frame["success"] != true {
            return;
        }
        if query.action == "subscribe" {
            client.session.subscribed.insert(query.about.clone(), at);
        }
        let key = self.key(number, &query.about);
        let data = &frame["data"];
        let status = data["status"].as_str().unwrap_or_default();
        let known = Status::ALL.into_iter().find(|known| known.as_protocol() == status);
        let is_true = match (self.requests.get(&key), known) {
            (Some(request), Some(status)) => {
                let is_consistent = !status.is_terminal()
                    || (request.state.status == status
                        && data["seq"] == request.state.seq
                        && data.get("result").is_none_or(|result| Some(result) == request.result().as_ref()));
                data["request_id"] == query.about
                    && request.has_been(status)
                    && is_consistent
                    && data["seq"].as_u64().is_some_and(|seq| seq <= request.state.seq)
            }
            _ => false,
        };
        if !is_true {
            let state = self.requests.get(&key).map(|request| request.state);
            let message = format!(
                "client {number} sent {} and received {data}, but the request is in state {state:?}",
                query.action
            );
            self.found.broken(rules::SNAPSHOT_MATCHES, at, Some(&key), message);
        }
    }

    /// Checks an error frame that answers a client's message. The error code NOT_FOUND or CONFLICT is allowed
    /// only for a valid reason.
    fn refused(&mut self, at: Timestamp, number: usize, id: &str, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let code = frame["error"]["code"].as_str().unwrap_or_default();
        let query = self.clients[number].queries.get(id).cloned();
        let (about, is_wrong) = match (code, query) {
            ("NOT_FOUND", Some(query)) => {
                let key = self.key(number, &query.about);
                let until = at + self.limits.skew;
                let is_there = self.requests.get(&key).is_some_and(|request| !request.has_expired(until));
                let is_wrong = query.was_there && is_there;
                (key, is_wrong)
            }
            ("CONFLICT", _) => {
                let key = self.key(number, id);
                let is_wrong = self.sent.get(&key).is_none_or(|sent| sent.contents.len() < 2);
                (key, is_wrong)
            }
            _ => return,
        };
        if is_wrong {
            let message = format!("client {number} received an unjustified error: {text}");
            self.found.broken(rules::REFUSAL_HAS_A_CAUSE, at, Some(&about), message);
        }
    }
}
