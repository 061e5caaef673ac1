//! A client, as its plan says: it sends, repeats, goes and comes back, and listens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::HeaderValue;
use http::header::SEC_WEBSOCKET_KEY;
use serde_json::{Value, json};
use streamer::protocol::Frame;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::plan::{Act, ClientPlan};
use super::record::{ClientEvent, Recorder, What};
use crate::client::{Client, ClientError};
use crate::signing_key::TokenFor;
use crate::stage::Stage;
use crate::watch;

/// A client at work.
pub(super) struct Person<'a> {
    number: usize,
    plan: &'a ClientPlan,
    stage: &'a Stage,
    recorder: Recorder,
    begun: Instant,
    connection: Option<Client>,
    /// The requests that were acknowledged, each with the last number seen, and whether it has ended.
    known: BTreeMap<String, Known>,
    /// How many messages with an id of their own it has sent.
    asides: u32,
}

#[derive(Debug, Default)]
struct Known {
    seq: u64,
    has_ended: bool,
}

impl<'a> Person<'a> {
    pub(super) fn new(number: usize, plan: &'a ClientPlan, stage: &'a Stage, recorder: &Recorder) -> Self {
        let (recorder, begun) = (recorder.clone(), Instant::now());
        Self { number, plan, stage, recorder, begun, connection: None, known: BTreeMap::new(), asides: 0 }
    }

    /// Does what the plan says, then waits for `calm`, and comes back for what it has not heard the end of; until all has ended, or
    /// `patience` is over.
    pub(super) async fn live(mut self, mut calm: watch::Receiver<bool>, patience: Duration) {
        for step in &self.plan.steps {
            self.listen_until(self.begun + Duration::from_millis(step.at_ms)).await;
            self.act(&step.act).await;
        }
        loop {
            let turn = Instant::now() + Duration::from_secs(1);
            self.listen_until(turn).await;
            if *calm.borrow_and_update() {
                break;
            }
        }
        let deadline = Instant::now() + patience;
        while !self.has_heard_all() && Instant::now() < deadline {
            if self.connection.is_none() {
                self.connect().await;
                let waited: BTreeSet<String> = self.unheard();
                for id in waited {
                    self.act(&Act::Subscribe { id }).await;
                }
            }
            self.listen_until(Instant::now() + Duration::from_secs(30)).await;
        }
    }

    fn unheard(&self) -> BTreeSet<String> {
        self.known.iter().filter(|(_, known)| !known.has_ended).map(|(id, _)| id.clone()).collect()
    }

    fn has_heard_all(&self) -> bool {
        self.known.values().all(|known| known.has_ended)
    }

    fn tell(&self, event: ClientEvent) {
        self.recorder.record(What::Client(self.number, event));
    }

    async fn connect(&mut self) {
        if self.connection.is_some() {
            return;
        }
        let whom = TokenFor::new(&self.plan.user, &self.plan.tenant);
        let url = format!("{}?token={}", self.stage.ws_url(), self.stage.token(&whom));
        let Ok(mut request) = url.into_client_request() else { return };
        // A client's own is left to chance, and stands in the event of `$connect`.
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="));
        match self.stage.pipe(request).await {
            Ok(opened) => {
                self.tell(ClientEvent::Connected);
                self.connection =
                    Some(Client::on(opened.stream, opened.headers, Duration::from_hours(24)).await);
            }
            Err(status) => self.tell(ClientEvent::Refused(status)),
        }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Connect => self.connect().await,
            Act::Close | Act::Vanish => {
                if let Some(connection) = self.connection.take() {
                    self.tell(ClientEvent::Left);
                    if *act == Act::Close {
                        let _ = connection.close().await;
                    }
                }
            }
            Act::Ask { id, action, payload } => {
                self.send(&json!({"action": action, "id": id, "payload": payload})).await;
            }
            Act::Cancel { id } => self.aside("cancel", json!({"request_id": id})).await,
            Act::Status { id } => self.aside("status", json!({"request_id": id})).await,
            Act::Subscribe { id } => {
                let seq = self.known.get(id).map_or(0, |known| known.seq);
                self.aside("subscribe", json!({"request_id": id, "seq": seq})).await;
            }
            Act::Say { text } => self.say(text.clone()).await,
        }
    }

    async fn aside(&mut self, action: &str, payload: Value) {
        self.asides += 1;
        let id = format!("{action}-{}", self.asides);
        self.send(&json!({"action": action, "id": id, "payload": payload})).await;
    }

    async fn send(&mut self, message: &Value) {
        self.say(message.to_string()).await;
    }

    async fn say(&mut self, text: String) {
        let Some(connection) = &mut self.connection else { return };
        let sent = connection.send_text(text.clone()).await;
        match sent {
            Ok(()) => self.tell(ClientEvent::Sent(text)),
            Err(_) => {
                self.connection = None;
                self.tell(ClientEvent::Closed(None));
            }
        }
    }

    /// Takes in what comes until then.
    async fn listen_until(&mut self, until: Instant) {
        while let Some(connection) = &mut self.connection {
            match timeout_at(until, connection.next_text_whenever()).await {
                Err(_) => return,
                Ok(Ok(text)) => self.got(text),
                Ok(Err(error)) => {
                    self.connection = None;
                    let code = if let ClientError::Closed { code, .. } = error { code } else { None };
                    self.tell(ClientEvent::Closed(code));
                }
            }
        }
        sleep_until(until).await;
    }

    fn got(&mut self, text: String) {
        if let Ok(frame) = serde_json::from_str::<Frame>(&text) {
            self.heard(&frame);
        }
        self.tell(ClientEvent::Got(text));
    }

    fn heard(&mut self, frame: &Frame) {
        let Some(id) = frame.request_id() else { return };
        let (seq, has_ended) = match frame {
            Frame::Acknowledgment { .. } => (None, false),
            Frame::Progress { seq, .. } => (Some(*seq), false),
            Frame::Complete { seq, .. } => (Some(*seq), true),
            Frame::Error { seq: Some(seq), .. } => (Some(*seq), true),
            Frame::Error { .. } | Frame::Response { .. } => return,
        };
        let known = self.known.entry(id.as_str().to_owned()).or_default();
        known.has_ended |= has_ended;
        if let Some(seq) = seq.and_then(|seq| serde_json::to_value(seq).ok()).and_then(|seq| seq.as_u64()) {
            known.seq = known.seq.max(seq);
        }
    }
}
