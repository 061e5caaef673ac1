//! The same plan, the same bytes: on any thread, in any process, and whatever else has run before.

use std::process::Command;
use std::thread;
use std::{env, fs};

use serde_json::json;
use streamer_sim::{Act, ClientPlan, FaultKind, FaultPlan, Plan, Sim, StagePlan, Step};

/// Where the other process is to leave its traces.
const TRACES: &str = "STREAMER_TEST_TRACES";

/// A seed as it is drawn, and a world in which everything goes wrong.
fn traces() -> String {
    let sim = Sim::default();
    let worlds = [sim.run_seed(7), sim.run_plan(all_goes_wrong())];
    worlds.map(|world| world.trace()).join("\n\n")
}

/// What strikes calls, of which there are hundreds.
const MANY_OCCASIONS: [FaultKind; 7] = [
    FaultKind::Throttle,
    FaultKind::FailBefore,
    FaultKind::FailAfter,
    FaultKind::LoseAnswer,
    FaultKind::SlowCall,
    FaultKind::Conflict,
    FaultKind::KillAtCall,
];

/// What strikes the queue of dead letters, where only what has failed for good is sent.
const FEW_OCCASIONS: [FaultKind; 2] = [FaultKind::QueueFailed, FaultKind::QueueUnanswered];

fn all_goes_wrong() -> Plan {
    let client = |user: &str| {
        let asks = (0_u64..12).map(|n| {
            let estimate_ms = [1_000, 10_000, 45_000][usize::try_from(n % 3).unwrap()];
            let steps = json!([{"wait": estimate_ms / 3}, {"report": 30.0}, {"wait": estimate_ms / 3}]);
            let end = if n % 3 == 1 { "fail" } else { "succeed" };
            let payload = json!({"estimate_ms": estimate_ms, "steps": steps, "end": end});
            let ask = Act::Request { id: format!("r{n}"), action: "work".to_owned(), payload };
            Step { at_ms: 1_000 + n * 4_000, act: ask }
        });
        let goes = [
            (0, Act::Connect),
            (20_500, Act::Vanish),
            (24_500, Act::Connect),
            (60_000, Act::Close),
            (70_000, Act::Connect),
        ];
        let mut steps: Vec<Step> =
            goes.map(|(at_ms, act)| Step { at_ms, act }).into_iter().chain(asks).collect();
        steps.sort_by_key(|step| step.at_ms);
        let (user, tenant) = (user.to_owned(), "acme".to_owned());
        ClientPlan { user, tenant, permissions: Vec::new(), token_ttl_ms: 0, gives_up: false, steps }
    };
    let faults = FaultKind::ALL.iter().map(|kind| {
        let rate = if MANY_OCCASIONS.contains(kind) {
            0.03
        } else if FEW_OCCASIONS.contains(kind) {
            0.6
        } else {
            0.25
        };
        FaultPlan { kind: *kind, rate, from_ms: 0, until_ms: 120_000 }
    });
    Plan {
        seed: 11,
        faults_until_ms: 120_000,
        stage: StagePlan::default(),
        clients: vec![client("ann"), client("bob"), client("ann")],
        faults: faults.collect(),
    }
}

#[track_caller]
fn assert_same(one: &str, other: &str) {
    let mut lines = one.lines().zip(other.lines()).enumerate();
    if let Some((at, (one, other))) = lines.find(|(_, (one, other))| one != other) {
        panic!("line {at} differs:\n{one}\n{other}");
    }
    assert_eq!(one.len(), other.len(), "one goes on where the other ends");
}

#[test]
fn one_plan_is_one_trace_in_any_thread_and_any_process() {
    if let Some(file) = env::var_os(TRACES) {
        fs::write(file, traces()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traces");
    let name = "determinism::one_plan_is_one_trace_in_any_thread_and_any_process";
    let process = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(TRACES, &file)
        .output();

    let thread = thread::spawn(traces);
    let here = traces();
    // Once more, when nothing is done for the first time any more.
    assert_same(&here, &traces());
    assert_same(&here, &thread.join().unwrap());
    let process = process.unwrap();
    assert!(process.status.success(), "{}", String::from_utf8_lossy(&process.stderr));
    assert_same(&here, &fs::read_to_string(file).unwrap());

    // A fault that is never seen leaves no trace that could differ.
    let is_told = |kind: &&FaultKind| {
        let told = [format!("fault: \"{}\"", kind.name()), format!("Fault {{ kind: {kind:?}")];
        told.iter().any(|told| here.contains(told))
    };
    let silent: Vec<_> = FaultKind::ALL.iter().filter(|kind| !is_told(kind)).collect();
    // One call is struck by one of them alone, and chance may leave out the odd one.
    assert!(silent.len() <= 2, "these never strike: {silent:?}");
}
