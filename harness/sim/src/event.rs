//! What happens in a world.

use std::fmt::Write as _;

use streamer::ports::Timestamp;

use super::plan::FaultKind;
use streamer_fakes::observe::Observation;
use streamer_harness::stage::StageBuilder;

/// When every world begins.
pub(super) const BEGIN: Timestamp = StageBuilder::STARTS_AT;

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum EventKind {
    /// A fake did something.
    Fake(Observation),
    /// A client did something, or something happened to it. Clients are numbered as in the plan.
    Client(usize, ClientEvent),
    /// A handler did something.
    Handler(HandlerEvent),
    /// The world did something.
    World(WorldEvent),
}

/// What a client did, and what it was told.
#[derive(Clone, Debug)]
pub(super) enum ClientEvent {
    /// It is connected.
    Connected,
    /// It was refused, with this status.
    Refused(u16),
    /// It sent this text.
    Sent(String),
    /// It got this text.
    Got(String),
    /// The gateway has closed its connection, with this code if there was a close frame.
    Closed(Option<u16>),
    /// It has closed its connection, or is gone without a word.
    Left,
}

/// What a handler did with a request.
#[derive(Clone, Debug)]
pub(super) struct HandlerEvent {
    pub(super) user: String,
    pub(super) tenant: String,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) continuations: u32,
    pub(super) phase: HandlerPhase,
}

/// How far a handler is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HandlerPhase {
    Begin,
    /// It has come to its own end, whatever that is.
    End,
    /// It was dropped before.
    Dropped,
}

/// What the world did to those who live in it.
#[derive(Clone, Debug)]
pub(super) enum WorldEvent {
    /// The stage is up, and time begins to count.
    Begin,
    /// Something goes wrong on purpose.
    Fault { kind: FaultKind, about: String },
    /// The last fault is over.
    FaultsEnded,
    /// All has settled, or had the time to.
    Settled,
    /// The stage has ended.
    End,
}

/// Every event, a line each: the same bytes for the same plan.
pub(super) fn trace(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let _ = writeln!(text, "{} {:?}", event.at.as_millis(), event.kind);
    }
    text
}
