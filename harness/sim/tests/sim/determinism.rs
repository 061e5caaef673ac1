//! Tests that equal plans give equal traces on any thread and in any process, regardless of earlier runs.

use std::process::Command;
use std::thread;
use std::{env, fs};

use serde_json::json;
use streamer_sim::{Act, ClientPlan, FaultKind, FaultPlan, Plan, Sim, StagePlan, Step};

/// Environment variable that holds the path of the file to which the child process writes its traces.
const TRACES: &str = "STREAMER_TEST_TRACES";

/// Returns the traces of the world of a seed, and of a world with every kind of fault.
fn traces() -> String {
    let sim = Sim::default();
    let worlds = [sim.run_seed(7), sim.run_plan(plan_with_every_fault())];
    worlds.map(|world| world.trace()).join("\n\n")
}

/// Kinds of faults that strike calls. A world has hundreds of calls, so these kinds get a low rate.
const MANY_OCCASIONS: [FaultKind; 7] = [
    FaultKind::Throttle,
    FaultKind::FailBefore,
    FaultKind::FailAfter,
    FaultKind::LoseAnswer,
    FaultKind::SlowCall,
    FaultKind::Conflict,
    FaultKind::KillAtCall,
];

/// Kinds of faults that strike the dead-letter queue. The queue receives few messages, so these kinds get a
/// high rate.
const FEW_OCCASIONS: [FaultKind; 2] = [FaultKind::QueueFailed, FaultKind::QueueUnanswered];

fn plan_with_every_fault() -> Plan {
    let client = |user: &str| {
        let requests = (0_u64..12).map(|n| {
            let estimate_ms = [1_000, 10_000, 45_000][usize::try_from(n % 3).unwrap()];
            let steps = json!([{"wait": estimate_ms / 3}, {"report": 30.0}, {"wait": estimate_ms / 3}]);
            let end = if n % 3 == 1 { "fail" } else { "succeed" };
            let payload = json!({"estimate_ms": estimate_ms, "steps": steps, "end": end});
            let request = Act::Request { id: format!("r{n}"), action: "work".to_owned(), payload };
            Step { at_ms: 1_000 + n * 4_000, act: request }
        });
        let connection_acts = [
            (0, Act::Connect),
            (20_500, Act::Vanish),
            (24_500, Act::Connect),
            (60_000, Act::Close),
            (70_000, Act::Connect),
        ];
        let mut steps: Vec<Step> =
            connection_acts.map(|(at_ms, act)| Step { at_ms, act }).into_iter().chain(requests).collect();
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
        panic!("trace line {at} differs:\n{one}\n{other}");
    }
    assert_eq!(one.len(), other.len(), "both traces have the same length");
}

#[test]
fn equal_plans_give_equal_traces_in_any_thread_and_any_process() {
    if let Some(file) = env::var_os(TRACES) {
        fs::write(file, traces()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traces");
    let name = "determinism::equal_plans_give_equal_traces_in_any_thread_and_any_process";
    let process = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(TRACES, &file)
        .output();

    let thread = thread::spawn(traces);
    let here = traces();
    // Run again on this thread, whose one-time initialization is done now.
    assert_same(&here, &traces());
    assert_same(&here, &thread.join().unwrap());
    let process = process.unwrap();
    assert!(process.status.success(), "{}", String::from_utf8_lossy(&process.stderr));
    assert_same(&here, &fs::read_to_string(file).unwrap());

    // A kind of fault that never strikes could hide a difference between traces.
    let is_traced = |kind: &&FaultKind| {
        let markers = [format!("fault: \"{}\"", kind.name()), format!("Fault {{ kind: {kind:?}")];
        markers.iter().any(|marker| here.contains(marker))
    };
    let silent: Vec<_> = FaultKind::ALL.iter().filter(|kind| !is_traced(kind)).collect();
    // At most one fault strikes a call, so one or two kinds may never strike by chance.
    assert!(silent.len() <= 2, "at most two kinds of faults never strike: {silent:?}");
}
