//! The simulator, tested: with bugs on purpose, one at a time, each of which it has to catch.
//!
//! ```sh
//! cargo test --release -p streamer-sim --features seeded-bugs --test bugs -- --nocapture
//! ```
//!
//! With `SEEDED_BUG` in the environment only the bugs are searched for whose names contain that.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use streamer::bugs::{self, Bug};
use streamer_sim::{Sim, Violation};

/// How many seeds a bug may need until it is caught.
const MOST_SEEDS: u64 = 1_000;
/// What shows too seldom to wait for: once all others are caught it is searched for no longer, unless it alone is asked for.
///
/// Whoever takes another's end for its own does harm only where both have failed, or somebody is still to be told: it takes a
/// process that stands still at the end of its attempt for longer than its lease, and wakes up at such a moment.
const SELDOM: [Bug; 1] = [Bug::ForeignEndTaken];
/// The embedded database parses expressions by recursion.
const STACK_BYTES: usize = 16 * 1024 * 1024;

#[test]
fn each_bug_is_caught_within_a_thousand_seeds_that_are_right_without_it() {
    let search = Search::of(&env::var("SEEDED_BUG").unwrap_or_default());
    search.all();
    let mut problems = String::new();
    println!("{:<34} {:>5}  the rule that was broken first", "bug", "seeds");
    let caught = search.caught.lock().unwrap();
    for bug in &search.bugs {
        let name = bug.name();
        if let Some(Caught { seed, violation }) = caught.get(bug) {
            println!("{name:<34} {:>5}  {}", seed + 1, violation.rule);
        } else {
            println!("{name:<34} {:>5}  –", "–");
            if search.is_missed(*bug) {
                let _ = writeln!(problems, "{name} is not caught by {MOST_SEEDS} seeds");
            }
        }
    }
    for (seed, violations) in search.without.lock().unwrap().iter() {
        for violation in violations {
            let _ = writeln!(problems, "seed {seed} is wrong without any bug: {violation}");
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

/// How a bug was caught.
struct Caught {
    seed: u64,
    /// What is wrong with that seed's world first, and is not without the bug.
    violation: Violation,
}

struct Search {
    bugs: Vec<Bug>,
    /// How many worlds have begun: of each seed one with each bug, seed by seed.
    begun: AtomicUsize,
    caught: Mutex<BTreeMap<Bug, Caught>>,
    /// What is wrong with seeds' worlds without any bug: nothing, it is to be hoped.
    without: Mutex<BTreeMap<u64, Vec<Violation>>>,
}

impl Search {
    fn of(name: &str) -> Self {
        let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| bug.name().contains(name)).collect();
        assert!(!bugs.is_empty(), "no bug is named {name:?}");
        Self { bugs, begun: AtomicUsize::new(0), caught: Mutex::default(), without: Mutex::default() }
    }

    /// Searches for the bugs, until each is caught: as many worlds side by side as there are cores. Seeds are taken in order, and
    /// what has begun is ended: the seed that catches a bug is the same however many cores there are.
    fn all(&self) {
        let work = || {
            while let Some((bug, seed)) = self.next() {
                let Some(violation) = self.catch(bug, seed) else { continue };
                eprintln!("{}, by seed {seed}: {violation}", bug.name());
                let mut caught = self.caught.lock().expect("no searcher panics");
                if caught.get(&bug).is_none_or(|known| known.seed > seed) {
                    caught.insert(bug, Caught { seed, violation });
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                let searcher = thread::Builder::new().stack_size(STACK_BYTES);
                searcher.spawn_scoped(scope, work).expect("the machine has room for another thread");
            }
        });
    }

    /// Whether it is wrong that a bug is not caught.
    fn is_missed(&self, bug: Bug) -> bool {
        self.bugs.len() == 1 || !SELDOM.contains(&bug)
    }

    /// The next world to try: of a bug that is not caught yet.
    fn next(&self) -> Option<(Bug, u64)> {
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let bug = self.bugs[number % self.bugs.len()];
            let seed = u64::try_from(number / self.bugs.len()).ok().filter(|seed| *seed < MOST_SEEDS)?;
            let caught = self.caught.lock().expect("no searcher panics");
            if self.bugs.iter().all(|bug| caught.contains_key(bug) || !self.is_missed(*bug)) {
                return None;
            }
            if !caught.contains_key(&bug) {
                return Some((bug, seed));
            }
        }
    }

    /// What is wrong with a seed's world first that is not without the bug.
    fn catch(&self, bug: Bug, seed: u64) -> Option<Violation> {
        let with = violations(Some(bug), seed);
        if with.is_empty() {
            return None;
        }
        let known = self.without.lock().expect("no searcher panics").get(&seed).cloned();
        let without = known.unwrap_or_else(|| violations(None, seed));
        let is_due_to_it = |found: &Violation| without.iter().all(|other| other.rule != found.rule);
        let violation = with.into_iter().find(is_due_to_it);
        self.without.lock().expect("no searcher panics").insert(seed, without);
        violation
    }
}

/// What is wrong with a seed's world where the code has this bug.
fn violations(bug: Option<Bug>, seed: u64) -> Vec<Violation> {
    bugs::set(bug);
    let world = Sim::default().run_seed(seed);
    bugs::set(None);
    world.violations
}
