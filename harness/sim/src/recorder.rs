//! Records the events of a world in order, and passes each event to the checker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streamer::ports::{Clock, Timestamp};
use tokio::sync::Notify;

use super::check::{Checker, Violation};
use super::event::{Event, EventKind};
use streamer_fakes::observe::{Observation, Observer};

/// Point at which the run of a world stops.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Until {
    /// The world runs to its regular end.
    End,
    /// The world stops at the first violation of this rule, because the rest could take an hour of virtual
    /// time.
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

/// Recorder of one world. Clones share one recording.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    clock: Arc<dyn Clock>,
    recorded: Mutex<Recorded>,
    until: Until,
    /// Notified when `until` is reached, and never before, so that waiting for the notification does not
    /// change the run.
    is_reached: Notify,
}

/// The recorded events, and the checker that has checked them.
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

    /// Waits until the rule at which the run should stop is broken.
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
        recorded.checker.check_event(&event);
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
