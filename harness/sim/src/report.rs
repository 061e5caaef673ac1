//! What came of many worlds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::check::Violation;
use super::plan::Plan;
use super::summary::Summary;
use super::tally::Tally;

/// What came of many worlds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The seeds that were to be run.
    pub seeds: Range<u64>,
    /// How many worlds have come to their end.
    pub worlds: u64,
    /// What was wrong, by seed.
    pub failures: BTreeMap<u64, Vec<Violation>>,
    /// The lowest seed that failed, made as small as it goes.
    pub smallest: Option<Failure>,
    /// How much time has passed in all worlds together.
    pub lasted: Duration,
    /// How long they took, on this machine.
    pub took: Duration,
    tally: Tally,
}

/// A world that is wrong, as small as it goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed that it was found with.
    pub seed: u64,
    /// What was wrong with that seed's world, first.
    pub violation: Violation,
    /// The same rule in the smallest world.
    pub smallest: Violation,
    /// What that is made from.
    pub plan: Plan,
    /// What happens in it.
    pub timeline: String,
    /// How many smaller worlds were tried.
    pub tried: u32,
}

/// What a report keeps of a world.
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

    /// What was reached, and what never.
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

    /// Worlds in a second, on all threads together.
    #[must_use]
    pub fn worlds_per_second(&self) -> f64 {
        self.worlds as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// How much faster time passes in the worlds than here, all threads together.
    #[must_use]
    pub fn times_real_time(&self) -> f64 {
        self.lasted.as_secs_f64() / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// # Panics
    /// When a world was wrong: with its seed, what was wrong, the smallest plan that shows it and what happens then; or when there
    /// was no world at all.
    #[track_caller]
    pub fn assert(&self) {
        if let Some(failure) = &self.smallest {
            panic!("{failure}");
        }
        if let Some((seed, violations)) = self.failures.first_key_value() {
            let told: Vec<_> = violations.iter().map(|violation| format!("\n  {violation}")).collect();
            panic!("The world of seed {seed} is wrong:{}", told.concat());
        }
        assert!(self.worlds > 0, "no world was made: of the seeds {:?}, none was run", self.seeds);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Seed {} is wrong:\n  {}", self.seed, self.violation)?;
        writeln!(
            f,
            "\nThe smallest world found with the same fault:\n  {}\n\n{}",
            self.smallest, self.timeline
        )?;
        writeln!(f, "Its plan, for Sim::run_plan:\n{}", self.plan.to_json())?;
        write!(f, "It was found with Sim::run_seed({}).", self.seed)
    }
}
