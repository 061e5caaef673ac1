//! What became of each request, and what its client saw: what users' own checks look at.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use streamer::ids::{RequestId, RequestKey, TenantId, UserId};
use streamer::protocol::{ErrorBody, Frame};

use super::check::FinalState;
use super::event::{BEGIN, ClientEvent, Event, EventKind};
use super::plan::Plan;

/// What became of a world's requests.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct History {
    /// Each request that a client has sent under an id, in the order in which they were first sent; the same id of the same
    /// user is one request, however often and by which of the user's clients it was sent.
    pub requests: Vec<RequestHistory>,
    /// The bodies of the messages in the dead-letter queue.
    pub dead_letters: Vec<Value>,
}

/// What became of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestHistory {
    /// Its key in the table: `tenant/user/id`.
    pub key: String,
    /// The tenant of whoever sent it.
    pub tenant: String,
    /// Whoever sent it.
    pub user: String,
    /// Its id.
    pub id: String,
    /// What was asked for, when it was first sent.
    pub action: String,
    /// With what, when it was first sent.
    pub payload: Value,
    /// How it stands at last, as the table has it, such as `COMPLETED`; a quick request keeps no record.
    pub status: Option<String>,
    /// How many attempts it took, as the table has it.
    pub attempts: u64,
    /// What a queued request came to, as the table has it.
    pub result: Option<Value>,
    /// Why a queued request failed, as the table has it.
    pub error: Option<ErrorBody>,
    /// The frames about it that its user's clients received.
    pub frames: Vec<ReceivedFrame>,
}

/// A frame that a client received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedFrame {
    /// When, from the world's begin.
    pub at: Duration,
    /// Which client, as the plan numbers them from 0.
    pub client: usize,
    /// The frame.
    pub frame: Frame,
}

impl History {
    pub(super) fn of(plan: &Plan, events: &[Event], last: &FinalState) -> Self {
        let mut requests = Requests::default();
        for event in events {
            let EventKind::Client(number, client) = &event.kind else { continue };
            let Some(of) = plan.clients.get(*number) else { continue };
            let (tenant, user) = (of.tenant.as_str(), of.user.as_str());
            match client {
                ClientEvent::Sent(text) => requests.sent(tenant, user, text),
                ClientEvent::Got(text) => {
                    let Ok(frame) = serde_json::from_str::<Frame>(text) else { continue };
                    let at = event.at.since(BEGIN);
                    requests.received(tenant, user, ReceivedFrame { at, client: *number, frame });
                }
                ClientEvent::Connected
                | ClientEvent::Refused(_)
                | ClientEvent::Closed(_)
                | ClientEvent::Left => {}
            }
        }
        let mut requests = requests.all;
        let items = Items::of(&last.requests);
        for request in &mut requests {
            items.complete(request);
        }
        let letters = last.dead_letters.iter().filter_map(|body| serde_json::from_str(body).ok());
        Self { requests, dead_letters: letters.collect() }
    }
}

#[derive(Default)]
struct Requests {
    all: Vec<RequestHistory>,
    by_key: BTreeMap<String, usize>,
}

impl Requests {
    fn sent(&mut self, tenant: &str, user: &str, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        let (Some(id), Some(action)) = (message["id"].as_str(), message["action"].as_str()) else { return };
        let Some(key) = key(tenant, user, id) else { return };
        self.by_key.entry(key.clone()).or_insert_with(|| {
            self.all.push(RequestHistory {
                key,
                tenant: tenant.to_owned(),
                user: user.to_owned(),
                id: id.to_owned(),
                action: action.to_owned(),
                payload: message["payload"].clone(),
                status: None,
                attempts: 0,
                result: None,
                error: None,
                frames: Vec::new(),
            });
            self.all.len() - 1
        });
    }

    fn received(&mut self, tenant: &str, user: &str, received: ReceivedFrame) {
        let key = received.frame.request_id().and_then(|id| key(tenant, user, id.as_str()));
        let request = key.and_then(|key| self.by_key.get(&key)).and_then(|at| self.all.get_mut(*at));
        if let Some(request) = request {
            request.frames.push(received);
        }
    }
}

/// The requests table's items, by request and part.
struct Items<'a>(BTreeMap<(&'a str, &'a str), &'a Value>);

impl<'a> Items<'a> {
    fn of(items: &'a [Value]) -> Self {
        let parts = items.iter().filter_map(|item| {
            Some(((item.get("request_id")?.as_str()?, item.get("part")?.as_str()?), item))
        });
        Self(parts.collect())
    }

    fn complete(&self, request: &mut RequestHistory) {
        let Some(item) = self.0.get(&(request.key.as_str(), "request")) else { return };
        let text = |item: &'a Value, attribute: &str| item.get(attribute).and_then(Value::as_str);
        let result = text(item, "result").or_else(|| {
            let part = self.0.get(&(request.key.as_str(), text(item, "result_part")?))?;
            text(part, "value")
        });
        request.result = result.and_then(|text| serde_json::from_str(text).ok());
        request.status = text(item, "status").map(str::to_owned);
        request.attempts = item.get("attempt").and_then(Value::as_u64).unwrap_or_default();
        request.error = text(item, "error").and_then(|text| serde_json::from_str(text).ok());
    }
}

fn key(tenant: &str, user: &str, id: &str) -> Option<String> {
    let id = RequestId::parse(id).ok()?;
    Some(RequestKey::new(&TenantId::new(tenant), &UserId::new(user), &id).as_str().to_owned())
}
