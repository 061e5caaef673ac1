//! Counts of the messages, handler runs, faults, frames and status changes in worlds.

use std::collections::BTreeMap;

use serde_json::Value;
use streamer::store::Status;

use super::event::{ClientEvent, Event, EventKind, HandlerPhase, WorldEvent};
use super::plan::FaultKind;
use streamer_fakes::observe::Observation;

/// Counts of the messages, handler runs, faults, frames and status changes in one world or in many.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    pub(super) events: u64,
    /// Number of messages that clients sent and that name an action.
    pub(super) messages: u64,
    /// Number of handler runs that were started.
    pub(super) runs: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) transitions: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) frames: BTreeMap<String, u64>,
    /// Number of error frames, by error code.
    pub(super) codes: BTreeMap<String, u64>,
}

/// Pseudo status of a request that is not stored yet.
pub(super) const NOT_STORED: &str = "new";

/// Status changes of a request that the state machine in `core` allows.
pub(super) const TRANSITIONS: &[(&str, &str)] = &[
    (NOT_STORED, "PENDING"),
    ("PENDING", "PROCESSING"),
    ("PENDING", "CANCELLED"),
    ("PROCESSING", "COMPLETED"),
    ("PROCESSING", "FAILED"),
    ("PROCESSING", "CANCELLED"),
    ("PROCESSING", "RETRYING"),
    ("PROCESSING", "PENDING"),
    ("RETRYING", "PENDING"),
    ("RETRYING", "PROCESSING"),
    ("RETRYING", "CANCELLED"),
];

/// Types of the frames that Streamer sends.
pub(super) const FRAMES: &[&str] = &["acknowledgment", "complete", "error", "progress", "response"];

impl Tally {
    pub(super) fn of(events: &[Event]) -> Self {
        let mut tally = Self { events: events.len() as u64, ..Self::default() };
        let mut states = States::default();
        for event in events {
            match &event.kind {
                EventKind::Fake(Observation::Injected { fault, .. }) => count(&mut tally.faults, *fault),
                EventKind::World(WorldEvent::Fault { kind, .. }) => count(&mut tally.faults, kind.name()),
                EventKind::Fake(Observation::Wrote { table, keys, image, .. }) => {
                    if let Some(change) = states.wrote(table, keys, image.as_ref()) {
                        count(&mut tally.transitions, change);
                    }
                }
                EventKind::Client(_, ClientEvent::Sent(text)) if text.contains("\"action\":") => {
                    tally.messages += 1
                }
                EventKind::Client(_, ClientEvent::Got(text)) => tally.got(text),
                EventKind::Handler(handler) if handler.phase == HandlerPhase::Begin => tally.runs += 1,
                EventKind::Fake(_) | EventKind::Client(..) | EventKind::Handler(_) | EventKind::World(_) => {}
            }
        }
        tally
    }

    fn got(&mut self, text: &str) {
        // The type is the first field of Streamer's frames, so the type is found without parsing the whole
        // frame.
        let named = text.strip_prefix("{\"type\":\"").and_then(|rest| rest.split_once('"'));
        let kind = named.map_or("other than Streamer's", |(kind, _)| kind);
        count(&mut self.frames, kind.to_owned());
        if kind == "error" {
            let code = text.split_once("\"code\":\"").and_then(|(_, rest)| rest.split_once('"'));
            count(&mut self.codes, code.map_or("no code", |(code, _)| code).to_owned());
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.messages += other.messages;
        self.runs += other.runs;
        merge(&mut self.faults, other.faults);
        merge(&mut self.transitions, other.transitions);
        merge(&mut self.frames, other.frames);
        merge(&mut self.codes, other.codes);
    }

    /// Returns the faults, status changes and frame types that never occurred.
    pub(super) fn never(&self) -> Vec<String> {
        let faults =
            FaultKind::ALL.iter().map(|kind| kind.name()).filter(|kind| !self.faults.contains_key(kind));
        let transitions = TRANSITIONS.iter().filter(|change| !self.transitions.contains_key(change));
        let frames = FRAMES.iter().filter(|kind| !self.frames.contains_key(**kind));
        faults
            .map(str::to_owned)
            .chain(transitions.map(|(from, to)| format!("{from} → {to}")))
            .chain(frames.map(|kind| format!("frame {kind}")))
            .collect()
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn merge<K: Ord>(counts: &mut BTreeMap<K, u64>, others: BTreeMap<K, u64>) {
    for (key, times) in others {
        *counts.entry(key).or_default() += times;
    }
}

/// Status of each request, tracked from the writes.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<String, &'static str>);

impl States {
    /// Records a write. Returns the old and the new status if the write changed a request's status.
    pub(super) fn wrote(
        &mut self,
        table: &str,
        keys: &Value,
        image: Option<&Value>,
    ) -> Option<(&'static str, &'static str)> {
        if !table.ends_with("RequestsTable") || text(keys, "part") != Some("request") {
            return None;
        }
        let key = text(keys, "request_id")?;
        let Some(image) = image else {
            self.0.remove(key);
            return None;
        };
        let stored = text(image, "status")?;
        let now = Status::ALL.iter().map(|status| status.as_str()).find(|status| *status == stored)?;
        let before = self.0.insert(key.to_owned(), now).unwrap_or(NOT_STORED);
        (before != now).then_some((before, now))
    }
}

/// Returns a string attribute of an item in DynamoDB JSON.
pub(super) fn text<'a>(item: &'a Value, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.get("S")?.as_str()
}
