//! Fixed seeds that every `cargo test` runs, and plans that once revealed a bug.

use std::fs;
use std::path::Path;

use streamer_sim::{Plan, Sim};

/// Number of seeds, which a busy laptop can run within a minute in a debug build. `cargo run --release --
/// sim` runs more.
const SEEDS: u64 = 8;

#[test]
fn worlds_of_fixed_seeds_break_no_rule() {
    let report = Sim::default().seeds(0..SEEDS).run();
    report.assert();
    assert_eq!(report.worlds, SEEDS);
}

#[test]
fn plans_that_once_revealed_a_bug_break_no_rule() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/regressions");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty());
    let sim = Sim::default();
    for file in files {
        let plan = Plan::from_json(&fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let world = sim.run_plan(plan);
        assert!(world.violations.is_empty(), "{}:\n{world}", file.display());
    }
}
