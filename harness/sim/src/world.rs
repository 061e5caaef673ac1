//! A world that is over.

use std::fmt;
use std::time::Duration;

use super::check::Violation;
use super::event;
use super::execution::Outcome;
use super::history::History;
use super::plan::Plan;
use super::tally::Tally;
use super::timeline::Timeline;

/// A world that is over: what was wrong with it, and all that happened.
#[derive(Debug)]
#[non_exhaustive]
pub struct World {
    /// What it was made from.
    pub plan: Plan,
    /// What must not be, and was, in the order in which it showed.
    pub violations: Vec<Violation>,
    /// How much time has passed in it.
    pub lasted: Duration,
    /// None, if it did not come to an end.
    outcome: Option<Outcome>,
}

impl World {
    pub(super) fn of(plan: Plan, mut outcome: Outcome) -> Self {
        let violations = std::mem::take(&mut outcome.violations);
        Self { plan, violations, lasted: outcome.lasted, outcome: Some(outcome) }
    }

    /// A world that has no end of its own.
    pub(super) fn broken(plan: Plan, violations: Vec<Violation>) -> Self {
        Self { plan, violations, lasted: Duration::ZERO, outcome: None }
    }

    /// Every event, a line each: the same bytes for the same plan, on every machine.
    #[must_use]
    pub fn trace(&self) -> String {
        self.outcome.as_ref().map(|outcome| event::trace(&outcome.events)).unwrap_or_default()
    }

    /// What happened, for people.
    #[must_use]
    pub fn timeline(&self) -> Timeline<'_> {
        let events = self.outcome.as_ref().map_or(&[][..], |outcome| &outcome.events);
        Timeline::new(events, &self.plan, &self.violations)
    }

    /// What became of each request, and what its client saw.
    #[must_use]
    pub fn history(&self) -> History {
        match &self.outcome {
            Some(outcome) => History::of(&self.plan, &outcome.events, &outcome.last),
            None => History::default(),
        }
    }

    /// Whether it was stopped before its end.
    pub(super) fn was_stopped(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.was_stopped)
    }

    pub(super) fn tally(&self) -> Tally {
        self.outcome.as_ref().map(|outcome| Tally::of(&outcome.events)).unwrap_or_default()
    }

    /// Whether a rule of this name was broken.
    #[must_use]
    pub fn breaks(&self, rule: &str) -> bool {
        self.violations.iter().any(|violation| violation.rule == rule)
    }

    /// # Panics
    /// When something was wrong with it: with what, when, and how it came to that.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

/// What was wrong with it, and its timeline.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The world of seed {}:", self.plan.seed)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "\n{}", self.timeline())
    }
}
