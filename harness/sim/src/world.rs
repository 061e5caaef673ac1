//! Result of one simulated run.

use std::fmt;
use std::time::Duration;

use super::check::Violation;
use super::event;
use super::execution::Outcome;
use super::history::History;
use super::plan::Plan;
use super::tally::Tally;
use super::timeline::Timeline;

/// Result of one simulated run (a world): the broken rules, the recorded events and the final state.
#[derive(Debug)]
#[non_exhaustive]
pub struct World {
    /// Plan that was simulated.
    pub plan: Plan,
    /// Rules that the run broke, in the order of detection.
    pub violations: Vec<Violation>,
    /// Virtual time that passed during the run.
    pub lasted: Duration,
    /// Recorded events and final state; `None` if the stage did not start or the run panicked.
    outcome: Option<Outcome>,
}

impl World {
    pub(super) fn of(plan: Plan, mut outcome: Outcome) -> Self {
        let violations = std::mem::take(&mut outcome.violations);
        Self { plan, violations, lasted: outcome.lasted, outcome: Some(outcome) }
    }

    /// Creates the result of a run that recorded no events, because the stage did not start or the run
    /// panicked.
    pub(super) fn broken(plan: Plan, violations: Vec<Violation>) -> Self {
        Self { plan, violations, lasted: Duration::ZERO, outcome: None }
    }

    /// Returns every event as text, one per line. The same plan gives the same bytes on every machine.
    #[must_use]
    pub fn trace(&self) -> String {
        self.outcome.as_ref().map(|outcome| event::trace(&outcome.events)).unwrap_or_default()
    }

    /// Returns the events as a timeline that users can read.
    #[must_use]
    pub fn timeline(&self) -> Timeline<'_> {
        let events = self.outcome.as_ref().map_or(&[][..], |outcome| &outcome.events);
        Timeline::new(events, &self.plan, &self.violations)
    }

    /// Returns the history of each request: what clients sent, what the table holds, and which frames clients
    /// received.
    #[must_use]
    pub fn history(&self) -> History {
        match &self.outcome {
            Some(outcome) => History::of(&self.plan, &outcome.events, &outcome.last),
            None => History::default(),
        }
    }

    /// Returns whether the run was stopped early, at the violation of a rule.
    pub(super) fn was_stopped(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.was_stopped)
    }

    pub(super) fn tally(&self) -> Tally {
        self.outcome.as_ref().map(|outcome| Tally::of(&outcome.events)).unwrap_or_default()
    }

    /// Returns whether the run broke the rule with this text.
    #[must_use]
    pub fn breaks(&self, rule: &str) -> bool {
        self.violations.iter().any(|violation| violation.rule == rule)
    }

    /// Asserts that the run broke no rule.
    ///
    /// # Panics
    /// If the run broke a rule. The message holds the violations and the timeline.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

/// Prints the violations and the timeline.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The world of seed {}:", self.plan.seed)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "\n{}", self.timeline())
    }
}
