//! What was reached in many worlds, counted.

use std::collections::BTreeMap;

use serde_json::Value;
use streamer::store::Status;

use super::event::{ClientEvent, Event, EventKind, HandlerPhase, WorldEvent};
use super::plan::FaultKind;
use streamer_fakes::observe::Observation;

/// How often each thing has happened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    pub(super) events: u64,
    /// What clients sent that is not about a request that there is.
    pub(super) messages: u64,
    /// Handlers that were begun.
    pub(super) runs: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) transitions: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) frames: BTreeMap<String, u64>,
    /// The codes of error frames.
    pub(super) codes: BTreeMap<String, u64>,
}

/// Where a request stands that does not exist.
pub(super) const NOWHERE: &str = "new";

/// What a request's state may become: `core`'s lifecycle.
pub(super) const TRANSITIONS: &[(&str, &str)] = &[
    (NOWHERE, "PENDING"),
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

/// The types of frames that Streamer sends.
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
        // The type stands first in our frames: thousands need not be read.
        let named = text.strip_prefix("{\"type\":\"").and_then(|rest| rest.split_once('"'));
        let kind = named.map_or("the gateway's own", |(kind, _)| kind);
        count(&mut self.frames, kind.to_owned());
        if kind == "error" {
            let code = text.split_once("\"code\":\"").and_then(|(_, rest)| rest.split_once('"'));
            count(&mut self.codes, code.map_or("none", |(code, _)| code).to_owned());
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

    /// What there is and was not reached: faults, transitions, frames.
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

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, what: K) {
    *counts.entry(what).or_default() += 1;
}

fn merge<K: Ord>(counts: &mut BTreeMap<K, u64>, others: BTreeMap<K, u64>) {
    for (what, times) in others {
        *counts.entry(what).or_default() += times;
    }
}

/// Where each request stands, from what is written.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<String, &'static str>);

impl States {
    /// From which state to which a write has changed a request, if it has.
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
        let before = self.0.insert(key.to_owned(), now).unwrap_or(NOWHERE);
        (before != now).then_some((before, now))
    }
}

/// A string attribute, as DynamoDB writes it.
pub(super) fn text<'a>(item: &'a Value, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.get("S")?.as_str()
}
