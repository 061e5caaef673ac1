//! A client, as its plan says: it sends, repeats, goes and comes back, and listens.
//!
//! Beyond its plan it behaves as a good client does: it comes back when its connection is lost, goes on with what it waits for,
//! and sends again what nobody has answered.

mod view;

use std::time::Duration;

use http::HeaderValue;
use http::header::SEC_WEBSOCKET_KEY;
use serde_json::{Value, json};
use streamer::protocol::Frame;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::event::{ClientEvent, EventKind};
use super::plan::{Act, ClientPlan};
use super::recorder::Recorder;
use streamer_fakes::watch;
use streamer_harness::client::{Client, ClientError};
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::Stage;
use view::{DueMessage, View};

/// A client at work.
pub(super) struct SimClient<'a> {
    number: usize,
    plan: &'a ClientPlan,
    stage: &'a Stage,
    recorder: Recorder,
    begun: Instant,
    connection: Option<Client>,
    /// Connections that it was cut off from: open as far as the gateway knows, and nobody reads from them.
    cut_off: Vec<Client>,
    /// When it tries to be connected again, unless it is away.
    reconnect_at: Option<Instant>,
    /// How often in a row it has lost its connection, or was refused.
    losses: u32,
    view: View,
    /// How many messages with an id of their own it has sent.
    asides: u32,
}

impl<'a> SimClient<'a> {
    /// How long a message may take to be taken by the gateway.
    const SEND_TIMEOUT: Duration = Duration::from_secs(10);
    /// How often it looks whether there is trouble still.
    const LOOK_UP: Duration = Duration::from_secs(1);
    /// The longest that it waits before it tries to connect again.
    const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);

    pub(super) fn new(number: usize, plan: &'a ClientPlan, stage: &'a Stage, recorder: &Recorder) -> Self {
        Self {
            number,
            plan,
            stage,
            recorder: recorder.clone(),
            begun: Instant::now(),
            connection: None,
            cut_off: Vec::new(),
            reconnect_at: None,
            losses: 0,
            view: View::new(!plan.gives_up),
            asides: 0,
        }
    }

    /// Does what the plan says, then waits for `faults_ended`, and comes back for what it has not heard the end of; until all has ended, or
    /// `patience` is over.
    pub(super) async fn run(mut self, mut faults_ended: watch::Receiver<bool>, patience: Duration) {
        for step in &self.plan.steps {
            self.listen_until(self.begun + Duration::from_millis(step.at_ms)).await;
            self.act(&step.act).await;
        }
        // Looked at now and then: to listen is not to be cut short, since what is half sent may arrive.
        while !*faults_ended.borrow_and_update() {
            self.listen_until(Instant::now() + Self::LOOK_UP).await;
        }
        self.view.faults_are_over = true;
        let deadline = Instant::now() + patience;
        while !self.view.is_done() && Instant::now() < deadline {
            if self.connection.is_none() && self.reconnect_at.is_none() {
                self.reconnect_at = Some(Instant::now());
            }
            self.listen_a_moment(deadline).await;
        }
    }

    fn record(&self, event: ClientEvent) {
        self.recorder.record(EventKind::Client(self.number, event));
    }

    async fn connect(&mut self) {
        if self.connection.is_some() {
            return;
        }
        self.reconnect_at = None;
        let mut token = TokenFor::new(&self.plan.user, &self.plan.tenant)
            .with_permissions(self.plan.permissions.iter().cloned());
        if self.plan.token_ttl_ms > 0 {
            token.ttl = Duration::from_millis(self.plan.token_ttl_ms);
        }
        let url = format!("{}?token={}", self.stage.ws_url(), self.stage.token(&token));
        let Ok(mut request) = url.into_client_request() else { return };
        // A client's own is left to chance, and stands in the event of `$connect`.
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="));
        match self.stage.open_stream(request).await {
            Ok(opened) => {
                self.record(ClientEvent::Connected);
                self.connection =
                    Some(Client::on(opened.stream, opened.headers, Duration::from_hours(24)).await);
                self.view.connected(Instant::now());
            }
            Err(status) => {
                self.record(ClientEvent::Refused(status));
                self.lost();
            }
        }
    }

    /// Has no connection, and will try again.
    fn lost(&mut self) {
        self.connection = None;
        self.view.disconnected();
        let delay = Duration::from_secs(1 << self.losses.min(5)).min(Self::MAX_RECONNECT_DELAY);
        self.losses += 1;
        self.reconnect_at = Some(Instant::now() + delay);
    }

    /// Leaves, and stays away until it is told to come back.
    fn leave(&mut self) -> Option<Client> {
        self.reconnect_at = None;
        let connection = self.connection.take()?;
        self.view.disconnected();
        self.record(ClientEvent::Left);
        Some(connection)
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Connect => self.connect().await,
            Act::Close => {
                if let Some(connection) = self.leave() {
                    let _ = timeout(Self::SEND_TIMEOUT, connection.close()).await;
                }
            }
            Act::Vanish => drop(self.leave()),
            Act::CutOff => {
                let connection = self.leave();
                self.cut_off.extend(connection);
            }
            Act::Request { id, action, payload } => {
                let text = json!({"action": action, "id": id, "payload": payload}).to_string();
                if self.send(text.clone()).await {
                    self.view.sent(id, text, Instant::now());
                }
            }
            Act::Cancel { id } => drop(self.aside("cancel", json!({"request_id": id})).await),
            Act::Status { id } => drop(self.aside("status", json!({"request_id": id})).await),
            Act::Subscribe { id } => self.subscribe(id).await,
            Act::SendText { text } => drop(self.send(text.clone()).await),
        }
    }

    async fn subscribe(&mut self, id: &str) {
        let payload = json!({"request_id": id, "seq": self.view.seen(id)});
        if let Some(aside) = self.aside("subscribe", payload).await {
            self.view.subscribing(aside, id, Instant::now());
        }
    }

    /// Sends a message with an id of its own, which it returns if it was sent.
    async fn aside(&mut self, action: &str, payload: Value) -> Option<String> {
        self.asides += 1;
        let id = format!("{action}-{}", self.asides);
        let message = json!({"action": action, "id": id, "payload": payload});
        self.send(message.to_string()).await.then_some(id)
    }

    /// Sends a text; says whether it was sent.
    async fn send(&mut self, text: String) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let sent = timeout(Self::SEND_TIMEOUT, connection.send_text(text.clone())).await;
        if let Ok(Ok(())) = sent {
            self.record(ClientEvent::Sent(text));
            return true;
        }
        self.lost();
        self.record(ClientEvent::Closed(None));
        false
    }

    /// Listens until then.
    async fn listen_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.listen_a_moment(until).await;
        }
    }

    /// Takes in one frame, or does what is due by itself; until then, if there is neither.
    async fn listen_a_moment(&mut self, until: Instant) {
        let Some(connection) = &mut self.connection else {
            match self.reconnect_at.filter(|at| *at < until) {
                Some(at) => {
                    sleep_until(at).await;
                    self.connect().await;
                }
                None => sleep_until(until).await,
            }
            return;
        };
        let due = self.view.due();
        let wait_until = due.map_or(until, |due| due.min(until));
        match timeout_at(wait_until, connection.next_text_without_timeout()).await {
            Ok(Ok(text)) => self.receive(text).await,
            Ok(Err(error)) => {
                self.lost();
                let code = if let ClientError::Closed { code, .. } = error { code } else { None };
                self.record(ClientEvent::Closed(code));
            }
            Err(_) if wait_until < until => match self.view.next(Instant::now()) {
                Some(DueMessage::Subscribe(id)) => self.subscribe(&id).await,
                Some(DueMessage::Resend(text)) => drop(self.send(text).await),
                None => {}
            },
            Err(_) => {}
        }
    }

    async fn receive(&mut self, text: String) {
        let frame = serde_json::from_str::<Frame>(&text);
        self.record(ClientEvent::Got(text));
        let Ok(frame) = frame else { return };
        self.losses = 0;
        if self.view.receive(&frame, Instant::now()) {
            return;
        }
        // It is not known any more, or its token has expired: it comes again with another.
        if let Some(connection) = self.leave() {
            let _ = timeout(Self::SEND_TIMEOUT, connection.close()).await;
            self.lost();
        }
    }
}
