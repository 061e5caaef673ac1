//! Result of many simulated runs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::check::Violation;
use super::plan::Plan;
use super::summary::Summary;
use super::tally::Tally;

/// Result of many simulated runs: counts, broken rules, and the smallest plan that still breaks one of the
/// rules.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// Range of the seeds that were requested; the runs of its last seeds are missing if the simulation was
    /// stopped.
    pub seeds: Range<u64>,
    /// Number of simulated runs (worlds) that were completed.
    pub worlds: u64,
    /// Violations of each simulated run that broke a rule. Key: the seed of the run.
    pub failures: BTreeMap<u64, Vec<Violation>>,
    /// Failure of the lowest seed that broke a rule, with its shrunk plan; `None` if no rule was broken or no
    /// plan was shrunk.
    pub smallest: Option<Failure>,
    /// Sum of the virtual times that passed in the simulated runs.
    pub lasted: Duration,
    /// Real time from the start of the first run to the end of the last run.
    pub took: Duration,
    tally: Tally,
}

/// A simulated run that broke a rule, shrunk to the smallest plan found that still breaks the rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Seed of the run that broke the rule, before shrinking.
    pub seed: u64,
    /// First violation in the run of the original plan, before shrinking.
    pub violation: Violation,
    /// Violation in the run of the shrunk plan, of the rule that the original run broke first.
    pub smallest: Violation,
    /// Plan after shrinking: the smallest plan found that still breaks the rule.
    pub plan: Plan,
    /// Timeline of the shrunk plan's run, as text.
    pub timeline: String,
    /// Number of smaller plans that were tried during shrinking.
    pub tried: u32,
}

/// Data of one finished run that a report keeps.
#[derive(Debug)]
pub(super) struct FinishedWorld {
    pub(super) seed: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) lasted: Duration,
    pub(super) tally: Tally,
}

impl Report {
    pub(super) fn new(seeds: Range<u64>) -> Self {
        Self {
            seeds,
            worlds: 0,
            failures: BTreeMap::new(),
            smallest: None,
            lasted: Duration::ZERO,
            took: Duration::ZERO,
            tally: Tally::default(),
        }
    }

    pub(super) fn add(&mut self, FinishedWorld { seed, violations, lasted, tally }: FinishedWorld) {
        self.worlds += 1;
        self.lasted += lasted;
        self.tally.add(tally);
        if !violations.is_empty() {
            self.failures.insert(seed, violations);
        }
    }

    /// Returns a summary with the number of occurrences of each fault, status change and frame. The summary
    /// also lists those that never occurred.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            worlds: self.worlds,
            lasted: self.lasted,
            took: self.took,
            worlds_per_second: self.worlds_per_second(),
            tally: &self.tally,
        }
    }

    /// Returns the number of completed runs divided by the real time in seconds that they took.
    #[must_use]
    pub fn worlds_per_second(&self) -> f64 {
        self.worlds as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Returns the total virtual time of all runs divided by the real time that they took.
    #[must_use]
    pub fn times_real_time(&self) -> f64 {
        self.lasted.as_secs_f64() / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Asserts that at least one simulated run was completed, and that no run broke a rule.
    ///
    /// # Panics
    /// If a run broke a rule, or if no run was completed. For a broken rule, the message holds the seed, the
    /// violation, the smallest plan and its timeline.
    #[track_caller]
    pub fn assert(&self) {
        if let Some(failure) = &self.smallest {
            panic!("{failure}");
        }
        if let Some((seed, violations)) = self.failures.first_key_value() {
            let lines: Vec<_> = violations.iter().map(|violation| format!("\n  {violation}")).collect();
            panic!("The world of seed {seed} breaks a rule:{}", lines.concat());
        }
        assert!(self.worlds > 0, "no world was run; expected at least one of the seeds {:?}", self.seeds);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The world of seed {} breaks a rule:\n  {}", self.seed, self.violation)?;
        writeln!(
            f,
            "\nThe smallest world found that breaks the same rule:\n  {}\n\n{}",
            self.smallest, self.timeline
        )?;
        writeln!(f, "Plan of the smallest world, to run with Sim::run_plan:\n{}", self.plan.to_json())?;
        write!(f, "The original world runs with Sim::run_seed({}).", self.seed)
    }
}
