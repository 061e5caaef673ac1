//! What happened in a world, in order: the trace that must be the same for the same plan, and what checks look at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streamer::ports::{Clock, Timestamp};
use tokio::sync::Notify;

use super::check::Checker;
use super::plan::FaultKind;
use super::world::Until;
use streamer_fakes::observe::{Observation, Observer};

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum What {
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
    pub(super) did: Did,
}

/// What a handler did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Did {
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
    /// Nothing goes wrong any more.
    Calm,
    /// All has settled, or had the time to.
    Settled,
    /// The stage has ended.
    End,
}

/// Keeps what happens; all clones are one record.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    until: Until,
    /// Told when `until` is reached, and not before: whoever waits for it disturbs nothing.
    is_enough: Notify,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) events: Vec<Event>,
    pub(super) checker: Checker,
}

impl Recorder {
    pub(super) fn new(clock: Arc<dyn Clock>, checker: Checker, until: Until) -> Self {
        let kept = Mutex::new(Kept { events: Vec::new(), checker });
        Self(Arc::new(Recording { clock, kept, until, is_enough: Notify::new() }))
    }

    /// Waits until something has happened that a world goes no further than.
    pub(super) async fn until(&self) {
        self.0.is_enough.notified().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(super) fn record(&self, what: What) {
        let event = Event { at: self.now(), what };
        let mut kept = self.kept();
        let kept = &mut *kept;
        let known = kept.checker.violations().len();
        kept.checker.saw(&event);
        kept.events.push(event);
        let new = kept.checker.violations().get(known..).unwrap_or_default();
        if new.iter().any(|violation| self.0.until.is_reached(violation)) {
            self.0.is_enough.notify_one();
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recorder {
    fn observe(&self, observation: Observation) {
        self.record(What::Fake(observation));
    }
}
