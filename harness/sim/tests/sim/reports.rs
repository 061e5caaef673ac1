//! Tests of the reports about worlds that break a rule. The broken rule is a user's check that fails on
//! purpose.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use streamer_sim::{Act, History, Plan, Report, Sim};

/// Returns a check that fails if a request with this id is stored. The check stands for a bug that a single
/// request of one client reveals.
fn without(id: &'static str) -> impl Fn(&History) -> Result<(), String> + Send + Sync {
    move |history| {
        let found = history.requests.iter().find(|request| request.id == id && request.status.is_some());
        found.map_or(Ok(()), |request| Err(format!("{} has the status {:?}", request.key, request.status)))
    }
}

fn requested_ids(plan: &Plan) -> Vec<&str> {
    let steps = plan.clients.iter().flat_map(|client| &client.steps);
    let ids = steps
        .filter_map(|step| if let Act::Request { id, .. } = &step.act { Some(id.as_str()) } else { None });
    ids.collect()
}

#[test]
fn plan_that_breaks_a_check_is_shrunk_and_its_timeline_shows_the_violation() {
    // A fixed plan: the plan of a seed changes whenever drawing changes, and a large plan takes long to
    // shrink.
    let steps: Vec<_> = (1..3)
        .map(|at| {
            json!({"at_ms": at * 500, "act": {"request": {"id": format!("r{at}"), "action": "work", "payload": {
                "estimate_ms": 10_000, "steps": [{"wait": 1_000}],
            }}}})
        })
        .collect();
    let client = |user: &str| {
        let steps = [&[json!({"at_ms": 0, "act": "connect"})], &steps[..]].concat();
        json!({"user": user, "tenant": "acme", "steps": steps})
    };
    let plan = json!({"schema": 2, "seed": 1, "faults_until_ms": 2, "clients": [client("ann"), client("bob")], "faults": [
        {"kind": "throttle", "rate": 0.01}
    ]});
    let sim = Sim::default().check("no request r2 is stored", without("r2"));
    let shrunk = sim.shrink(Plan::from_json(&plan.to_string()).unwrap(), "no request r2 is stored");
    assert_eq!(requested_ids(&shrunk.plan), ["r2"]);
    assert_eq!((shrunk.plan.clients.len(), shrunk.plan.faults.len()), (1, 0));
    // The shrunk plan breaks the same rule when it is read from its file.
    let again = sim.run_plan(Plan::from_json(&shrunk.plan.to_json()).unwrap());
    assert!(again.breaks("no request r2 is stored"));
    let text = again.to_string();
    for expected in ["The world of seed", "no request r2 is stored", "new → PENDING", "VIOLATION"] {
        assert!(text.contains(expected), "the text contains {expected:?}:\n{text}");
    }
    let panic = catch_unwind(AssertUnwindSafe(|| again.assert())).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>(), Some(&text));
}

#[test]
fn report_does_not_depend_on_the_number_of_threads() {
    let report = |threads: usize| {
        let sim = Sim::default()
            .check("always fails", |_| Err("deliberate violation".to_owned()))
            .seeds(0..2)
            .threads(threads);
        let Report { worlds, failures, lasted, .. } = sim.run_while(|_| true);
        format!("{worlds} {failures:?} {lasted:?}")
    };
    let one = report(1);
    assert!(
        one.starts_with("2 ") && one.contains("deliberate violation"),
        "both worlds report the violation: {one}"
    );
    assert_eq!(one, report(3));
}

#[test]
fn run_that_is_stopped_finishes_the_worlds_that_have_begun() {
    let report = Sim::default().seeds(0..1_000).threads(2).run_while(|so_far| so_far.worlds < 1);
    assert!((1..10).contains(&report.worlds), "1 to 9 worlds are run: {}", report.worlds);
    let none = Sim::default().seeds(0..0).run();
    let panic = catch_unwind(AssertUnwindSafe(|| none.assert())).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("no world was run"));
}

#[test]
fn summary_counts_events_and_lists_the_kinds_of_events_that_never_occurred() {
    let report = Sim::default().seeds(0..2).run_while(|_| true);
    let summary = report.summary().to_string();
    for expected in
        ["2 worlds in", "new → PENDING", "PENDING → PROCESSING", "acknowledgment", "\nnever reached: "]
    {
        assert!(summary.contains(expected), "the summary contains {expected:?}:\n{summary}");
    }
    // Few worlds split a shard, so the kind `split_shard` is either counted or listed as never reached.
    assert_eq!(
        summary.contains("split_shard  "),
        !report.summary().never().contains(&"split_shard".to_owned())
    );
}
