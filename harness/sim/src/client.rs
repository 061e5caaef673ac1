//! A simulated client, which executes the steps of its plan.
//!
//! Between the steps, it behaves as a well-written client does. It reconnects when its connection is lost,
//! resumes its subscriptions, and (unless its plan says `gives_up`) resends messages that were not answered.

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

/// A simulated client while its world runs.
pub(super) struct SimClient<'a> {
    number: usize,
    plan: &'a ClientPlan,
    stage: &'a Stage,
    recorder: Recorder,
    begun: Instant,
    connection: Option<Client>,
    /// Connections that a `CutOff` step abandoned. The gateway still considers these connections open, but
    /// the client no longer reads from them.
    cut_off: Vec<Client>,
    /// Time of the next attempt to connect; `None` while the client is connected or stays away.
    reconnect_at: Option<Instant>,
    /// Number of consecutive lost or refused connections, from which the reconnect delay is computed. A
    /// received frame resets the number to 0.
    losses: u32,
    view: View,
    /// Number of messages sent with a generated id (cancel, status and subscribe), used to make those ids
    /// distinct.
    queries_sent: u32,
}

impl<'a> SimClient<'a> {
    /// Longest wait for the send of one message or of a close frame.
    const SEND_TIMEOUT: Duration = Duration::from_secs(10);
    /// Interval at which the client checks whether faults may still be injected.
    const FAULTS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
    /// Upper limit of the reconnect delay, which doubles with each consecutive loss.
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
            queries_sent: 0,
        }
    }

    /// Executes the plan's steps, and then listens until `faults_ended` is true. After that, the client stays
    /// connected until every request that it waits for is terminal, or until `patience` has passed.
    pub(super) async fn run(mut self, mut faults_ended: watch::Receiver<bool>, patience: Duration) {
        for step in &self.plan.steps {
            self.listen_until(self.begun + Duration::from_millis(step.at_ms)).await;
            self.act(&step.act).await;
        }
        // Poll the flag instead of selecting on it: cancelling `listen_until` could abandon a half-sent
        // message that still arrives.
        while !*faults_ended.borrow_and_update() {
            self.listen_until(Instant::now() + Self::FAULTS_CHECK_INTERVAL).await;
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
        // tungstenite draws a random key, and the `$connect` event contains the key. A fixed key keeps the
        // events of equal plans equal.
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
                self.schedule_reconnect();
            }
        }
    }

    /// Marks the connection as lost, and schedules the next attempt to connect.
    fn schedule_reconnect(&mut self) {
        self.connection = None;
        self.view.disconnected();
        let delay = Duration::from_secs(1 << self.losses.min(5)).min(Self::MAX_RECONNECT_DELAY);
        self.losses += 1;
        self.reconnect_at = Some(Instant::now() + delay);
    }

    /// Leaves the connection, and cancels a scheduled reconnect. Returns the connection, or `None` if the
    /// client was not connected.
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
            Act::Cancel { id } => drop(self.send_query("cancel", json!({"request_id": id})).await),
            Act::Status { id } => drop(self.send_query("status", json!({"request_id": id})).await),
            Act::Subscribe { id } => self.subscribe(id).await,
            Act::SendText { text } => drop(self.send(text.clone()).await),
        }
    }

    async fn subscribe(&mut self, id: &str) {
        let payload = json!({"request_id": id, "seq": self.view.seen(id)});
        if let Some(message_id) = self.send_query("subscribe", payload).await {
            self.view.subscribing(message_id, id, Instant::now());
        }
    }

    /// Sends a query about a request, under a generated message id. Returns that id, or `None` if the message
    /// could not be sent.
    async fn send_query(&mut self, action: &str, payload: Value) -> Option<String> {
        self.queries_sent += 1;
        let id = format!("{action}-{}", self.queries_sent);
        let message = json!({"action": action, "id": id, "payload": payload});
        self.send(message.to_string()).await.then_some(id)
    }

    /// Sends a text message. Returns true if the message was sent. If a send fails or takes too long, the
    /// connection counts as lost.
    async fn send(&mut self, text: String) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let sent = timeout(Self::SEND_TIMEOUT, connection.send_text(text.clone())).await;
        if let Ok(Ok(())) = sent {
            self.record(ClientEvent::Sent(text));
            return true;
        }
        self.schedule_reconnect();
        self.record(ClientEvent::Closed(None));
        false
    }

    /// Receives frames and sends due messages until the given time.
    async fn listen_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.listen_a_moment(until).await;
        }
    }

    /// Handles the next event: a frame, a due message, or a due reconnect. Returns at `until` if no event
    /// occurs earlier.
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
                self.schedule_reconnect();
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
        // UNAUTHORIZED: the connection's item is gone, or its token has expired. Reconnect with a new token.
        if let Some(connection) = self.leave() {
            let _ = timeout(Self::SEND_TIMEOUT, connection.close()).await;
            self.schedule_reconnect();
        }
    }
}
