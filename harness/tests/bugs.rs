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

/// What came of the seeds with a bug.
enum Search {
    /// This many were needed; with the last, this was wrong.
    Caught(u64, Violation),
    /// This seed is wrong without any bug as well.
    WrongWithout(u64, Violation),
    /// All were in vain.
    Missed,
}

impl Search {
    fn told(&self) -> String {
        match self {
            Self::Caught(seeds, violation) => format!("caught by seed {}: {violation}", seeds - 1),
            Self::WrongWithout(seed, violation) => format!("seed {seed} is wrong without it: {violation}"),
            Self::Missed => format!("not caught by {MOST_SEEDS} seeds"),
        }
    }
}

#[test]
fn each_bug_is_caught_within_a_thousand_seeds_that_are_right_without_it() {
    let found = search_all();
    let mut problems = String::new();
    println!("{:<34} {:>5}  the rule that was broken first", "bug", "seeds");
    for (bug, search) in &found {
        let (seeds, rule) = match search {
            Search::Caught(seeds, violation) => (seeds.to_string(), violation.rule.as_str()),
            Search::WrongWithout(..) | Search::Missed => {
                let _ = writeln!(problems, "{}: {}", bug.name(), search.told());
                ("–".to_owned(), "–")
            }
        };
        println!("{:<34} {seeds:>5}  {rule}", bug.name());
    }
    assert_eq!(found.len(), Bug::ALL.len());
    assert!(problems.is_empty(), "{problems}");
}

/// Searches for each bug, as many at once as there are cores.
fn search_all() -> BTreeMap<Bug, Search> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let search = search(*bug);
            // Some take minutes.
            eprintln!("{}: {}", bug.name(), search.told());
            found.lock().unwrap().insert(*bug, search);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let searcher = thread::Builder::new().stack_size(STACK_BYTES);
            searcher.spawn_scoped(scope, work).expect("the machine has room for another thread");
        }
    });
    found.into_inner().unwrap()
}

fn search(bug: Bug) -> Search {
    let first_wrong = (0..MOST_SEEDS).find_map(|seed| Some((seed, wrong(Some(bug), seed)?)));
    let Some((seed, violation)) = first_wrong else { return Search::Missed };
    match wrong(None, seed) {
        None => Search::Caught(seed + 1, violation),
        Some(violation) => Search::WrongWithout(seed, violation),
    }
}

/// What is wrong first with a seed's world, where the code has this bug.
fn wrong(bug: Option<Bug>, seed: u64) -> Option<Violation> {
    bugs::set(bug);
    let world = Sim::default().run_seed(seed);
    bugs::set(None);
    world.violations.into_iter().next()
}
