//! Events of a simulated run.

use std::fmt::Write as _;

use streamer::ports::Timestamp;

use super::plan::FaultKind;
use streamer_fakes::observe::Observation;
use streamer_harness::stage::StageBuilder;

/// Time at which every world begins, on its virtual clock.
pub(super) const BEGIN: Timestamp = StageBuilder::STARTS_AT;

/// A recorded event of a world, with its time.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) kind: EventKind,
}

/// The source and the content of an event.
#[derive(Clone, Debug)]
pub(super) enum EventKind {
    /// An observation of a fake, such as a write or an invocation.
    Fake(Observation),
    /// An event of a client, with the client's index in the plan.
    Client(usize, ClientEvent),
    /// A handler started, finished or was dropped.
    Handler(HandlerEvent),
    /// An event that concerns the whole world, such as the end of the faults.
    World(WorldEvent),
}

/// Event of a simulated client: a change of its connection, or a message that it sent or received.
#[derive(Clone, Debug)]
pub(super) enum ClientEvent {
    /// The client is connected.
    Connected,
    /// The gateway refused the connection, with this HTTP status.
    Refused(u16),
    /// The client sent this text.
    Sent(String),
    /// The client received this text.
    Got(String),
    /// The client lost its connection. Holds the close code if the gateway sent a close frame; otherwise
    /// `None`.
    Closed(Option<u16>),
    /// The client closed its connection, vanished, or was cut off.
    Left,
}

/// Event of a handler's run: its start or its end, with the request that the handler processes.
#[derive(Clone, Debug)]
pub(super) struct HandlerEvent {
    pub(super) user: String,
    pub(super) tenant: String,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) continuations: u32,
    pub(super) phase: HandlerPhase,
}

/// Phase of a handler's run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HandlerPhase {
    /// The handler has started.
    Begin,
    /// The handler has returned, or panicked on purpose.
    End,
    /// The handler's future was dropped before the handler finished.
    Dropped,
}

/// An event that concerns the whole world.
#[derive(Clone, Debug)]
pub(super) enum WorldEvent {
    /// The stage has started, and the clients start.
    Begin,
    /// A fault that affects no particular call struck: a shard was split, or a new version was deployed.
    Fault { kind: FaultKind, about: String },
    /// From now on, no fault is injected.
    FaultsEnded,
    /// The timer index is empty, or the wait for an empty index has timed out. The quiet time after the wait
    /// has passed too.
    Settled,
    /// The stage was shut down.
    End,
}

/// Formats the events as text, one per line. Equal plans produce equal bytes.
pub(super) fn trace(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let _ = writeln!(text, "{} {:?}", event.at.as_millis(), event.kind);
    }
    text
}
