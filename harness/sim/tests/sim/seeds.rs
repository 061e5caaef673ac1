//! The seeds that every `cargo test` runs, and the plans that once showed a bug.

use std::fs;
use std::path::Path;

use streamer_sim::{Plan, Sim};

/// As many as fit into a minute of a busy laptop, unoptimised; `cargo run --release -- sim` runs more.
const SEEDS: u64 = 8;

#[test]
fn nothing_is_wrong_with_these_worlds() {
    let report = Sim::default().seeds(0..SEEDS).run();
    report.assert();
    assert_eq!(report.worlds, SEEDS);
}

#[test]
fn what_was_mended_stays_mended() {
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
