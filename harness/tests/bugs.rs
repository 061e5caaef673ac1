//! The simulator, tested: with bugs on purpose, one at a time, each of which it has to catch.
//!
//! ```sh
//! cargo test --release -p streamer-harness --features seeded-bugs --test bugs -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use streamer::bugs::{self, Bug};
use streamer_harness::sim::{Sim, Violation};

/// How many seeds a bug may need until it is caught.
const MOST_SEEDS: u64 = 1_000;
/// The embedded database parses expressions by recursion.
const STACK_BYTES: usize = 16 * 1024 * 1024;

#[test]
fn each_bug_is_caught_within_a_thousand_seeds_that_are_right_without_it() {
    let search = Search::default();
    search.all();
    let mut problems = String::new();
    println!("{:<32} {:>5}  the rule that was broken first", "bug", "seeds");
    for bug in Bug::ALL {
        let name = bug.name();
        match &search.found.lock().unwrap()[bug] {
            Some(Caught { seed, violation }) => println!("{name:<32} {:>5}  {}", seed + 1, violation.rule),
            None => {
                println!("{name:<32} {:>5}  –", "–");
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

#[derive(Default)]
struct Search {
    next: AtomicUsize,
    found: Mutex<BTreeMap<Bug, Option<Caught>>>,
    /// What is wrong with seeds' worlds without any bug: nothing, it is to be hoped.
    without: Mutex<BTreeMap<u64, Vec<Violation>>>,
}

impl Search {
    /// Searches for each bug, as many at once as there are cores.
    fn all(&self) {
        let work = || {
            while let Some(bug) = Bug::ALL.get(self.next.fetch_add(1, Ordering::Relaxed)) {
                let caught = (0..MOST_SEEDS).find_map(|seed| self.catch(*bug, seed));
                // Some take minutes: what is known is said.
                match &caught {
                    Some(Caught { seed, violation }) => {
                        eprintln!("{}, by seed {seed}: {violation}", bug.name())
                    }
                    None => eprintln!("{}, by none of {MOST_SEEDS} seeds", bug.name()),
                }
                self.found.lock().unwrap().insert(*bug, caught);
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                let searcher = thread::Builder::new().stack_size(STACK_BYTES);
                searcher.spawn_scoped(scope, work).expect("the machine has room for another thread");
            }
        });
    }

    fn catch(&self, bug: Bug, seed: u64) -> Option<Caught> {
        let with = violations(Some(bug), seed);
        if with.is_empty() {
            return None;
        }
        let known = self.without.lock().unwrap().get(&seed).cloned();
        let without = known.unwrap_or_else(|| violations(None, seed));
        let is_due_to_it = |found: &Violation| without.iter().all(|other| other.rule != found.rule);
        let violation = with.into_iter().find(is_due_to_it);
        self.without.lock().unwrap().insert(seed, without);
        Some(Caught { seed, violation: violation? })
    }
}

/// What is wrong with a seed's world where the code has this bug.
fn violations(bug: Option<Bug>, seed: u64) -> Vec<Violation> {
    bugs::set(bug);
    let world = Sim::default().run_seed(seed);
    bugs::set(None);
    world.violations
}
