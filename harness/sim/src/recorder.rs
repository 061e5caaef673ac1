//! Keeps what happens in a world, in order, and has it checked: the trace must be the same for the same plan.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streamer::ports::{Clock, Timestamp};
use tokio::sync::Notify;

use super::check::{Checker, Violation};
use super::event::{Event, EventKind};
use streamer_fakes::observe::{Observation, Observer};

/// How far a world goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Until {
    /// To its end.
    End,
    /// To the first thing that breaks this rule: what it does after that, it may do for an hour.
    Broken(String),
}

impl Until {
    pub(super) fn is_reached(&self, violation: &Violation) -> bool {
        match self {
            Self::End => false,
            Self::Broken(rule) => violation.rule == *rule,
        }
    }
}

/// Keeps what happens; all clones are one record.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    clock: Arc<dyn Clock>,
    recorded: Mutex<Recorded>,
    until: Until,
    /// Told when `until` is reached, and not before: whoever waits for it disturbs nothing.
    is_reached: Notify,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) events: Vec<Event>,
    pub(super) checker: Checker,
}

impl Recorder {
    pub(super) fn new(clock: Arc<dyn Clock>, checker: Checker, until: Until) -> Self {
        let recorded = Mutex::new(Recorded { events: Vec::new(), checker });
        Self(Arc::new(Recording { clock, recorded, until, is_reached: Notify::new() }))
    }

    /// Waits until something has happened that a world goes no further than.
    pub(super) async fn until(&self) {
        self.0.is_reached.notified().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(super) fn record(&self, kind: EventKind) {
        let event = Event { at: self.now(), kind };
        let mut recorded = self.recorded();
        let recorded = &mut *recorded;
        let known = recorded.checker.violations().len();
        recorded.checker.saw(&event);
        recorded.events.push(event);
        let new = recorded.checker.violations().get(known..).unwrap_or_default();
        if new.iter().any(|violation| self.0.until.is_reached(violation)) {
            self.0.is_reached.notify_one();
        }
    }

    pub(super) fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recorder {
    fn observe(&self, observation: Observation) {
        self.record(EventKind::Fake(observation));
    }
}
