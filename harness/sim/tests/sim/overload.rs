//! Plans of overload scenarios: the files parse, files of version 1 migrate to the same plans, and the first
//! steps of each plan break no rule.

use std::fs;
use std::path::{Path, PathBuf};

use streamer_sim::{Plan, Sim};

/// Number of steps of each client that are run, because all steps take minutes in a debug build.
const STEPS: usize = 8;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/overload")
}

/// Returns the plans in a folder, with the names of their files.
fn plans(folder: &Path) -> Vec<(String, Plan)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let plans = files.into_iter().map(|file| {
        let plan = Plan::from_json(&fs::read_to_string(&file).unwrap());
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.file_name().unwrap().to_string_lossy().into_owned(), plan)
    });
    plans.collect()
}

#[test]
fn version_1_overload_plans_migrate_to_their_version_2_plans() {
    let migrated = plans(&folder().join("schema-1"));
    assert_eq!(migrated.len(), 4);
    assert_eq!(migrated, plans(&folder()));
}

#[test]
fn first_steps_of_each_overload_plan_break_no_rule() {
    let sim = Sim::default();
    for (name, mut plan) in plans(&folder()) {
        for client in &mut plan.clients {
            client.steps.truncate(STEPS);
        }
        plan.faults_until_ms = plan
            .clients
            .iter()
            .filter_map(|client| client.steps.last())
            .map(|step| step.at_ms)
            .max()
            .unwrap();
        let world = sim.run_plan(plan);
        assert!(world.violations.is_empty(), "{name}:\n{world}");
    }
}
