//! Tests the simulator with seeded bugs: mistakes in `core` that are switched on one at a time. The simulator
//! must catch each.
//!
//! ```sh
//! cargo test --release -p streamer-sim --features seeded-bugs --test bugs -- --nocapture
//! ```
//!
//! If `SEEDED_BUG` is set in the environment, only the bugs whose names contain its value are searched for.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use streamer::bugs::{self, Bug};
use streamer_sim::{Sim, Violation};

/// Number of seeds within which a bug must be caught.
const MAX_SEEDS: u64 = 1_000;
/// Bugs that the simulator catches too rarely: the test passes even if it misses them. The search ends when
/// all other bugs are caught. If a rarely caught bug is the only bug to search for, it must be caught.
///
/// `ForeignEndingTaken`: an attempt treats the terminal write of a different attempt as its own. The mistake
/// does harm only if both attempts have failed, or if a subscriber still lacks the terminal frame. The
/// attempt's process must freeze at the end of the attempt for longer than its lease, and then continue while
/// one of these conditions holds.
const RARELY_CAUGHT: [Bug; 1] = [Bug::ForeignEndingTaken];
/// Stack size of a thread, because the embedded database parses expressions recursively.
const STACK_BYTES: usize = 16 * 1024 * 1024;

#[test]
fn each_seeded_bug_is_caught_within_a_thousand_seeds_that_pass_without_the_bug() {
    let search = Search::of(&env::var("SEEDED_BUG").unwrap_or_default());
    search.all();
    let mut problems = String::new();
    println!("{:<34} {:>5}  first broken rule", "bug", "seeds");
    let caught = search.caught.lock().unwrap();
    for bug in &search.bugs {
        let name = bug.name();
        if let Some(Caught { seed, violation }) = caught.get(bug) {
            println!("{name:<34} {:>5}  {}", seed + 1, violation.rule);
        } else {
            println!("{name:<34} {:>5}  –", "–");
            if search.is_missed(*bug) {
                let _ = writeln!(problems, "bug {name} is not caught within {MAX_SEEDS} seeds");
            }
        }
    }
    for (seed, violations) in search.without.lock().unwrap().iter() {
        for violation in violations {
            let _ = writeln!(problems, "seed {seed} breaks a rule without any bug: {violation}");
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

/// The seed and the violation by which a bug was caught.
struct Caught {
    seed: u64,
    /// First violation in the seed's world whose rule is not broken without the bug.
    violation: Violation,
}

struct Search {
    bugs: Vec<Bug>,
    /// Number of runs that have begun. The runs go seed by seed, with one run for each bug.
    begun: AtomicUsize,
    caught: Mutex<BTreeMap<Bug, Caught>>,
    /// Violations of the worlds without any bug, by seed. Each list should be empty, because a world without
    /// a bug breaks no rule.
    without: Mutex<BTreeMap<u64, Vec<Violation>>>,
}

impl Search {
    fn of(name: &str) -> Self {
        let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| bug.name().contains(name)).collect();
        assert!(!bugs.is_empty(), "no bug has a name that contains {name:?}");
        Self { bugs, begun: AtomicUsize::new(0), caught: Mutex::default(), without: Mutex::default() }
    }

    /// Searches for all bugs, with one thread for each core. Seeds are tried in order, and each run that has
    /// begun is finished. So the seed that catches a bug does not depend on the number of cores.
    fn all(&self) {
        let work = || {
            while let Some((bug, seed)) = self.next() {
                let Some(violation) = self.catch(bug, seed) else { continue };
                eprintln!("{} caught by seed {seed}: {violation}", bug.name());
                let mut caught = self.caught.lock().expect("no search thread panics");
                if caught.get(&bug).is_none_or(|known| known.seed > seed) {
                    caught.insert(bug, Caught { seed, violation });
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                let searcher = thread::Builder::new().stack_size(STACK_BYTES);
                searcher.spawn_scoped(scope, work).expect("the operating system can start another thread");
            }
        });
    }

    /// Returns true if the test must fail when the bug is not caught.
    fn is_missed(&self, bug: Bug) -> bool {
        self.bugs.len() == 1 || !RARELY_CAUGHT.contains(&bug)
    }

    /// Returns the next bug that is not caught yet, and the seed to try it with; `None` when the search is
    /// over.
    fn next(&self) -> Option<(Bug, u64)> {
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let bug = self.bugs[number % self.bugs.len()];
            let seed = u64::try_from(number / self.bugs.len()).ok().filter(|seed| *seed < MAX_SEEDS)?;
            let caught = self.caught.lock().expect("no search thread panics");
            if self.bugs.iter().all(|bug| caught.contains_key(bug) || !self.is_missed(*bug)) {
                return None;
            }
            if !caught.contains_key(&bug) {
                return Some((bug, seed));
            }
        }
    }

    /// Runs a seed's world with the bug. Returns the first violation whose rule is not broken without the
    /// bug.
    fn catch(&self, bug: Bug, seed: u64) -> Option<Violation> {
        let with = violations(Some(bug), seed);
        if with.is_empty() {
            return None;
        }
        let known = self.without.lock().expect("no search thread panics").get(&seed).cloned();
        let without = known.unwrap_or_else(|| violations(None, seed));
        let is_due_to_it = |found: &Violation| without.iter().all(|other| other.rule != found.rule);
        let violation = with.into_iter().find(is_due_to_it);
        self.without.lock().expect("no search thread panics").insert(seed, without);
        violation
    }
}

/// Returns the violations of a seed's world while the bug is switched on.
fn violations(bug: Option<Bug>, seed: u64) -> Vec<Violation> {
    bugs::set(bug);
    let world = Sim::default().run_seed(seed);
    bugs::set(None);
    world.violations
}
