//! Stories: made-up sequences of events in a world. Each event has a name by which a test can change it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use streamer::ports::Timestamp;

use super::super::{Checker, FinalState};
use crate::event::{ClientEvent, Event, EventKind, HandlerEvent, HandlerPhase, WorldEvent};
use crate::plan::{Act, ClientPlan, Plan, StagePlan, Step};
use streamer_fakes::faults::{Caller, Skew};
use streamer_fakes::observe::{Answer, Observation};

pub(super) const ROUTER: &str = "streamer-RouterFunction";
pub(super) const PROCESSOR: &str = "streamer-ProcessorFunction";
pub(super) const WORKER: &str = "streamer-WorkerFunction";
pub(super) const SWEEPER: &str = "streamer-SweeperFunction";

/// Returns the time that is this many seconds after the start of the story, in milliseconds since 1970.
pub(super) const fn moment(seconds: u64) -> u64 {
    1_700_000_000_000 + seconds * 1_000
}

/// A request's item in DynamoDB JSON.
#[derive(Clone, Debug)]
pub(super) struct Item(Value);

impl Item {
    /// Returns the item of the request `acme/ann/r1` as it is queued at the start.
    fn queued() -> Self {
        let mut item = Self(json!({}));
        let texts = [
            ("request_id", "acme/ann/r1"),
            ("part", "request"),
            ("client_id", "r1"),
            ("user_id", "ann"),
            ("tenant_id", "acme"),
            ("connection_id", "c1"),
            ("action", "work"),
            ("metadata", "{}"),
            ("progress_message", ""),
            ("progress_metadata", "{}"),
            ("timer_shard", "3"),
            ("payload", "{}"),
        ];
        for (attribute, text) in texts {
            item.s(attribute, text);
        }
        item.status("PENDING")
            .n("attempt", 0)
            .n("max_attempts", 2)
            .n("epoch", 0)
            .n("seq", 0)
            .n("percentage", 0);
        item.n("created_at", moment(0)).n("timer_at", moment(60));
        item.subscribers(&["c1"]);
        item
    }

    pub(super) fn s(&mut self, attribute: &str, text: &str) -> &mut Self {
        self.0[attribute] = json!({"S": text});
        self
    }

    pub(super) fn n(&mut self, attribute: &str, number: u64) -> &mut Self {
        self.0[attribute] = json!({"N": number.to_string()});
        self
    }

    pub(super) fn flag(&mut self, attribute: &str) -> &mut Self {
        self.0[attribute] = json!({"BOOL": true});
        self
    }

    pub(super) fn without(&mut self, attribute: &str) -> &mut Self {
        if let Some(item) = self.0.as_object_mut() {
            item.shift_remove(attribute);
        }
        self
    }

    pub(super) fn status(&mut self, status: &str) -> &mut Self {
        self.s("status", status).s("status_shard", &format!("{status}#3"))
    }

    pub(super) fn subscribers(&mut self, connections: &[&str]) -> &mut Self {
        let map: serde_json::Map<String, Value> =
            connections.iter().map(|connection| ((*connection).to_owned(), json!({"N": "0"}))).collect();
        self.0["subscribers"] = json!({"M": map});
        self
    }

    fn claimed(&mut self, epoch: u64, seconds: u64) -> &mut Self {
        self.status("PROCESSING").n("epoch", epoch).n("attempt", epoch).s("owner", &format!("o{epoch}"));
        self.n("lease_expires_at", moment(seconds + 60)).n("started_at", moment(seconds));
        self.n("timer_at", moment(seconds + 70))
    }

    fn ended(&mut self, status: &str, seq: u64, seconds: u64) -> &mut Self {
        self.status(status).n("seq", seq).without("lease_expires_at").without("cancel_requested");
        self.n("finished_at", moment(seconds)).n("ttl", moment(seconds) / 1_000 + 604_800);
        self.n("timer_at", moment(seconds + 30))
    }

    fn delivered(&mut self) -> &mut Self {
        self.subscribers(&[]).without("timer_at").without("timer_shard").without("dead_letter")
    }
}

/// Events of a made-up world, and its final state.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) plan: Plan,
    /// Whether the client sends its request.
    pub(super) sends_request: bool,
    pub(super) estimate_ms: u64,
    events: Vec<(String, Event)>,
    item: Item,
    pub(super) items: Vec<Value>,
    pub(super) connections: Vec<Value>,
    pub(super) dead_letters: Vec<String>,
    pub(super) stream_failures: Vec<String>,
    pub(super) tasks_left: usize,
    pub(super) last_at_secs: u64,
}

impl Story {
    /// Starts a story: two users connect, and one of them sends a request, which is claimed and reports
    /// progress.
    fn begin() -> Self {
        let client = |user: &str| ClientPlan {
            user: user.to_owned(),
            tenant: "acme".to_owned(),
            permissions: Vec::new(),
            token_ttl_ms: 0,
            gives_up: false,
            steps: vec![Step { at_ms: 0, act: Act::Connect }],
        };
        let mut story = Self {
            plan: Plan {
                seed: 1,
                faults_until_ms: 1_000,
                stage: StagePlan::default(),
                clients: vec![client("ann"), client("bob")],
                faults: Vec::new(),
            },
            sends_request: true,
            estimate_ms: 10_000,
            events: Vec::new(),
            item: Item::queued(),
            items: vec![json!({"request_id": "acme/ann/r1", "part": "request"})],
            connections: vec![json!({"connection_id": "c1"}), json!({"connection_id": "c2"})],
            dead_letters: Vec::new(),
            stream_failures: Vec::new(),
            tasks_left: 0,
            last_at_secs: 600,
        };
        for (number, (user, connection)) in [("ann", "c1"), ("bob", "c2")].into_iter().enumerate() {
            let claims = URL_SAFE_NO_PAD.encode(json!({"sub": user, "tenant_id": "acme"}).to_string());
            let event = json!({
                "requestContext": {"connectionId": connection},
                "queryStringParameters": {"token": format!("h.{claims}.s")},
            });
            let environment = caller("streamer-ConnectFunction", 8);
            let payload = event.to_string().into();
            story.sees("connecting", 0, Observation::Invoked { environment, payload });
            story.sees("opened", 0, Observation::Opened { connection: connection.to_owned() });
            story.happens("connected", 0, EventKind::Client(number, ClientEvent::Connected));
        }
        let sent = json!({"action": "work", "id": "r1", "payload": {"estimate_ms": 10_000}});
        story.happens("sent", 0, EventKind::Client(0, ClientEvent::Sent(sent.to_string())));
        story.writes("queued", 0, ROUTER, 1, |item| item);
        story.gets(
            "acknowledged",
            0,
            &json!({"type": "acknowledgment", "request_id": "r1", "status": "queued"}),
        );
        story.writes("claimed", 1, PROCESSOR, 2, |item| item.claimed(1, 1));
        story.runs("ran", 1, 1);
        let progress =
            json!({"type": "progress", "request_id": "r1", "percentage": 50.0, "seq": (1 << 20) + 1});
        story.posts("progress pushed", 3, 2, &progress);
        story.gets("progress received", 3, &progress);
        story.writes("progress stored", 3, PROCESSOR, 2, |item| {
            item.n("percentage", 50).n("seq", (1 << 20) + 1).n("lease_expires_at", moment(63))
        });
        story
    }

    fn ends(mut self, frame: &Value, seconds: u64, by: u64) -> Self {
        self.posts("terminal frame pushed", seconds, by, frame);
        self.gets("terminal frame received", seconds, frame);
        self.writes("delivery recorded", seconds, PROCESSOR, by, Item::delivered);
        self.happens("faults ended", seconds, EventKind::World(WorldEvent::FaultsEnded));
        self
    }

    /// Returns the story of a request that completes at the first attempt.
    pub(super) fn completed() -> Self {
        let mut story = Self::begin();
        let result = json!({"user": "ann", "tenant": "acme", "id": "r1"});
        let text = result.to_string();
        story.writes("terminal write", 4, PROCESSOR, 2, |item| {
            item.ended("COMPLETED", (1 << 20) + 2, 4).s("result", &text)
        });
        let frame = json!({
            "type": "complete", "request_id": "r1", "success": true, "result": result, "timestamp": 4,
            "seq": (1 << 20) + 2,
        });
        story.ends(&frame, 4, 2)
    }

    /// Returns the story of a request that fails twice and becomes a dead letter.
    pub(super) fn failed() -> Self {
        let mut story = Self::begin();
        let payload = json!({"estimate_ms": 10_000, "end": "fail"});
        let text = payload.to_string();
        story.each_item(|item| item.s("payload", &text));
        story.item.s("payload", &text);
        story.writes("retry scheduled", 5, PROCESSOR, 2, |item| {
            item.status("RETRYING")
                .n("seq", 2 << 20)
                .without("lease_expires_at")
                .n("timer_at", moment(8))
                .s("history", "[]")
        });
        story.writes("pending again", 8, SWEEPER, 5, |item| {
            item.status("PENDING").n("timer_at", moment(8 + 150))
        });
        story.writes("claimed again", 9, WORKER, 3, |item| item.claimed(2, 9));
        story.runs("ran again", 9, 2);
        let error = json!({"code": "NO_GOOD", "message": "this job always fails"});
        let text = error.to_string();
        story.writes("terminal write", 10, WORKER, 3, |item| {
            item.ended("FAILED", (2 << 20) + 1, 10).s("error", &text).flag("dead_letter")
        });
        let letter = json!({
            "id": format!("acme/ann/r1#2@{}", moment(0)), "request_id": "r1", "user": "ann", "tenant": "acme",
            "connection": "c1", "action": "work", "payload": payload, "error": error, "attempts": 2, "max_attempts": 2,
            "epoch": 2, "history": [], "created_at": moment(0), "failed_at": moment(10),
        });
        story.dead_letters.push(letter.to_string());
        let queue = "streamer-DeadLetterQueue".to_owned();
        story.sees("dead letter sent", 10, Observation::Queued { queue, body: letter.to_string() });
        let frame = json!({
            "type": "error", "request_id": "r1", "error": error, "timestamp": 10, "seq": (2 << 20) + 1,
        });
        story.ends(&frame, 10, 3)
    }

    /// Returns the story of a request that its user cancels while it runs.
    pub(super) fn cancelled() -> Self {
        let mut story = Self::begin();
        let cancel = json!({"action": "cancel", "id": "q1", "payload": {"request_id": "r1"}});
        story.happens("cancel sent", 4, EventKind::Client(0, ClientEvent::Sent(cancel.to_string())));
        story.writes("cancel requested", 4, ROUTER, 1, |item| item.flag("cancel_requested"));
        story.writes("terminal write", 6, PROCESSOR, 2, |item| item.ended("CANCELLED", (1 << 20) + 2, 6));
        let frame = json!({
            "type": "error", "request_id": "r1", "error": {"code": "CANCELLED", "message": "m"}, "timestamp": 6,
            "seq": (1 << 20) + 2,
        });
        story.ends(&frame, 6, 2)
    }

    fn happens(&mut self, name: &str, seconds: u64, kind: EventKind) {
        let at = Timestamp::from_millis(moment(seconds));
        self.events.push((name.to_owned(), Event { at, kind }));
    }

    fn sees(&mut self, name: &str, seconds: u64, observation: Observation) {
        self.happens(name, seconds, EventKind::Fake(observation));
    }

    fn writes(
        &mut self,
        name: &str,
        seconds: u64,
        function: &str,
        number: u64,
        change: impl FnOnce(&mut Item) -> &mut Item,
    ) {
        change(&mut self.item);
        let written = written(function, number, &self.item);
        self.sees(name, seconds, written);
    }

    fn posts(&mut self, name: &str, seconds: u64, number: u64, frame: &Value) {
        let function = if number == 3 { WORKER } else { PROCESSOR };
        let by = Some(caller(function, number));
        let (connection, frame) = ("c1".to_owned(), frame.to_string());
        self.sees(name, seconds, Observation::Posted { caller: by, connection, frame, answer: Answer::Done });
    }

    fn gets(&mut self, name: &str, seconds: u64, frame: &Value) {
        self.happens(name, seconds, EventKind::Client(0, ClientEvent::Got(frame.to_string())));
    }

    fn runs(&mut self, name: &str, seconds: u64, attempt: u32) {
        let event = HandlerEvent {
            user: "ann".to_owned(),
            tenant: "acme".to_owned(),
            id: "r1".to_owned(),
            attempt,
            continuations: 0,
            phase: HandlerPhase::Begin,
        };
        self.happens(name, seconds, EventKind::Handler(event));
    }

    fn at(&self, name: &str) -> usize {
        let place = self.events.iter().position(|(known, _)| known == name);
        place.unwrap_or_else(|| panic!("the story has no event {name:?}"))
    }

    fn kind_of(&mut self, name: &str) -> &mut EventKind {
        let place = self.at(name);
        &mut self.events[place].1.kind
    }

    pub(super) fn event(&self, name: &str) -> EventKind {
        self.events[self.at(name)].1.kind.clone()
    }

    pub(super) fn insert_after(&mut self, name: &str, kind: EventKind) {
        self.insert_named(name, "inserted", kind);
    }

    fn insert_named(&mut self, after: &str, name: &str, kind: EventKind) {
        let place = self.at(after);
        let at = self.events[place].1.at;
        self.events.insert(place + 1, (name.to_owned(), Event { at, kind }));
    }

    pub(super) fn keep_only(&mut self, names: &[&str]) {
        self.events.retain(|(name, _)| names.contains(&name.as_str()));
    }

    pub(super) fn remove(&mut self, names: &[&str]) {
        self.events.retain(|(name, _)| !names.contains(&name.as_str()));
    }

    /// Exchanges the positions of two events. Each event keeps its time.
    pub(super) fn swap(&mut self, one: &str, other: &str) {
        let (one, other) = (self.at(one), self.at(other));
        self.events.swap(one, other);
    }

    /// Delays the first of the named events, and all events after it, by this many seconds.
    pub(super) fn late(&mut self, names: &[&str], seconds: u64) {
        let from = self.at(names[0]);
        for (_, event) in &mut self.events[from..] {
            event.at = Timestamp::from_millis(event.at.as_millis() + seconds * 1_000);
        }
    }

    /// Changes the item that the named write stores.
    pub(super) fn item(&mut self, name: &str, change: impl FnOnce(&mut Item) -> &mut Item) {
        let EventKind::Fake(Observation::Wrote { image: Some(image), .. }) = self.kind_of(name) else {
            panic!("event {name:?} is not a write")
        };
        let mut item = Item(image.take());
        change(&mut item);
        *image = item.0;
    }

    /// Changes the item that each write stores.
    pub(super) fn each_item(&mut self, change: impl Fn(&mut Item) -> &mut Item) {
        for (_, event) in &mut self.events {
            if let EventKind::Fake(Observation::Wrote { image: Some(image), .. }) = &mut event.kind {
                let mut item = Item(image.take());
                change(&mut item);
                *image = item.0;
            }
        }
    }

    pub(super) fn item_of(&self, name: &str) -> Item {
        let EventKind::Fake(Observation::Wrote { image: Some(image), .. }) = self.event(name) else {
            panic!("event {name:?} is not a write")
        };
        Item(image)
    }

    /// Inserts a write after the named event, or after the last inserted write if that write is later in the
    /// story.
    pub(super) fn write_after(
        &mut self,
        name: &str,
        function: &str,
        number: u64,
        change: impl FnOnce(&mut Item) -> &mut Item,
    ) {
        let last = self
            .events
            .iter()
            .rposition(|(known, _)| known == "write inserted")
            .filter(|place| *place > self.at(name));
        let mut item = last.map_or_else(
            || self.item_of(name),
            |place| {
                let EventKind::Fake(Observation::Wrote { image: Some(image), .. }) =
                    self.events[place].1.kind.clone()
                else {
                    panic!("an inserted event is a write")
                };
                Item(image)
            },
        );
        change(&mut item);
        let after = last.map_or(name, |_| "write inserted").to_owned();
        let written = written(function, number, &item);
        self.insert_named(&after, "write inserted", EventKind::Fake(written));
    }

    /// Inserts a DynamoDB read by a function after the named event.
    pub(super) fn calls_after(&mut self, name: &str, function: &str) {
        let called = Observation::Called {
            caller: Some(caller(function, 2)),
            operation: "GetItem".to_owned(),
            tables: "streamer-RequestsTable".to_owned(),
            index: None,
            answer: Answer::Done,
        };
        self.insert_after(name, EventKind::Fake(called));
    }

    pub(super) fn delete_after(&mut self, name: &str) {
        let table = "streamer-RequestsTable".to_owned();
        let keys = keys();
        self.insert_after(
            name,
            EventKind::Fake(Observation::Wrote { caller: None, table, keys, image: None }),
        );
    }

    /// Replaces the function and the environment that make the named write.
    pub(super) fn by(&mut self, name: &str, function: &str, number: u64) {
        let EventKind::Fake(Observation::Wrote { caller: by, .. }) = self.kind_of(name) else {
            panic!("event {name:?} is not a write")
        };
        *by = Some(caller(function, number));
    }

    /// Replaces the function and the environment that push the named frame.
    pub(super) fn posted_by(&mut self, name: &str, function: &str, number: u64) {
        let EventKind::Fake(Observation::Posted { caller: by, .. }) = self.kind_of(name) else {
            panic!("event {name:?} is not a post")
        };
        *by = Some(caller(function, number));
    }

    /// Changes the connection to which the named frame is pushed.
    pub(super) fn to(&mut self, name: &str, to: &str) {
        let EventKind::Fake(Observation::Posted { connection, .. }) = self.kind_of(name) else {
            panic!("event {name:?} is not a post")
        };
        to.clone_into(connection);
    }

    /// Changes the named pushed frame.
    pub(super) fn frame(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let EventKind::Fake(Observation::Posted { frame, .. }) = self.kind_of(name) else {
            panic!("event {name:?} is not a post")
        };
        *frame = changed(frame, change);
    }

    /// Inserts a changed copy of the pushed frame `name` after the last inserted write, or after the event
    /// `after` if no write has been inserted.
    pub(super) fn repeat_after(&mut self, name: &str, after: &str, change: impl FnOnce(&mut Value)) {
        let mut kind = self.event(name);
        let EventKind::Fake(Observation::Posted { frame, .. }) = &mut kind else {
            panic!("event {name:?} is not a post")
        };
        *frame = changed(frame, change);
        let after = if self.events.iter().any(|(known, _)| known == "write inserted") {
            "write inserted"
        } else {
            after
        };
        self.insert_after(after, kind);
    }

    /// Changes the named frame that the client receives.
    pub(super) fn change_received(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let EventKind::Client(_, ClientEvent::Got(text)) = self.kind_of(name) else {
            panic!("event {name:?} is not a received frame")
        };
        *text = changed(text, change);
    }

    pub(super) fn gets_after(&mut self, name: &str, frame: &Value) {
        self.insert_after(name, EventKind::Client(0, ClientEvent::Got(frame.to_string())));
    }

    /// Inserts a query of the client about its request, with the message id `q1`.
    pub(super) fn asks_after(&mut self, name: &str, action: &str) {
        let text = json!({"action": action, "id": "q1", "payload": {"request_id": "r1"}}).to_string();
        self.insert_named(name, "query sent", EventKind::Client(0, ClientEvent::Sent(text)));
    }

    /// Changes the dead letter that is sent.
    pub(super) fn letter(&mut self, change: impl FnOnce(&mut Value)) {
        let EventKind::Fake(Observation::Queued { body, .. }) = self.kind_of("dead letter sent") else {
            panic!("the dead letter is a queued message")
        };
        *body = changed(body, change);
    }

    /// Runs the checker over the story. Returns the broken rules in the order of detection.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut checker = Checker::new(&self.plan);
        for (name, event) in &self.events {
            if name == "sent" {
                let sent =
                    json!({"action": "work", "id": "r1", "payload": {"estimate_ms": self.estimate_ms}});
                let kind = EventKind::Client(0, ClientEvent::Sent(sent.to_string()));
                if self.sends_request {
                    checker.check_event(&Event { at: event.at, kind });
                }
                continue;
            }
            checker.check_event(event);
        }
        checker.finish(&FinalState {
            at: Timestamp::from_millis(moment(self.last_at_secs)),
            requests: self.items.clone(),
            connections: self.connections.clone(),
            dead_letters: self.dead_letters.clone(),
            stream_failures: self.stream_failures.clone(),
            tasks_left: self.tasks_left,
        });
        checker.violations().iter().map(|violation| violation.rule.clone()).collect()
    }
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(text).unwrap();
    change(&mut value);
    value.to_string()
}

fn caller(function: &str, number: u64) -> Caller {
    Caller::numbered(function, number, 1, Skew::default())
}

fn keys() -> Value {
    json!({"request_id": {"S": "acme/ann/r1"}, "part": {"S": "request"}})
}

fn written(function: &str, number: u64, item: &Item) -> Observation {
    let (by, table) = (Some(caller(function, number)), "streamer-RequestsTable".to_owned());
    Observation::Wrote { caller: by, table, keys: keys(), image: Some(item.0.clone()) }
}
