//! History of each request of a world, for a user's own checks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use streamer::ids::{RequestId, RequestKey, TenantId, UserId};
use streamer::protocol::{ErrorBody, Frame};

use super::check::FinalState;
use super::event::{BEGIN, ClientEvent, Event, EventKind};
use super::plan::Plan;

/// History of one simulated run: its requests with their results and frames, and the messages in the
/// dead-letter queue.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct History {
    /// Requests that clients sent with an id, in the order in which each was first sent. Messages of one user
    /// with the same id are one request, even if several of the user's clients send them.
    pub requests: Vec<RequestHistory>,
    /// Bodies of the messages in the dead-letter queue at the end of the run, as JSON.
    pub dead_letters: Vec<Value>,
}

/// History of one request: what clients sent, what the requests table holds, and which frames the user
/// received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestHistory {
    /// Key of the request in the requests table: `tenant/user/id`, with `%` and `/` escaped in each part.
    pub key: String,
    /// Tenant of the user who sent the request.
    pub tenant: String,
    /// User who sent the request.
    pub user: String,
    /// Request id that the client chose.
    pub id: String,
    /// Action of the first message that was sent with the request's id.
    pub action: String,
    /// Payload of the first message that was sent with the request's id.
    pub payload: Value,
    /// Final status in the requests table, such as `COMPLETED`; `None` if the table has no item for the
    /// request, as for a quick request.
    pub status: Option<String>,
    /// Number of attempts that were begun, from the requests table; 0 if the table has no item for the
    /// request.
    pub attempts: u64,
    /// Result of a queued request that completed, from the requests table; otherwise `None`.
    pub result: Option<Value>,
    /// Error of a queued request that failed, from the requests table; otherwise `None`.
    pub error: Option<ErrorBody>,
    /// Frames about the request that its user's clients received, in the order of arrival.
    pub frames: Vec<ReceivedFrame>,
}

/// A frame that a simulated client received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedFrame {
    /// Virtual time from the start of the run to the arrival of the frame.
    pub at: Duration,
    /// Index of the receiving client in [`Plan::clients`].
    pub client: usize,
    /// The received frame.
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

/// Items of the requests table, by the request's key and the value of the `part` attribute, which is
/// `request` for the request's own item.
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
