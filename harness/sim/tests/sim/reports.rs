//! What the simulator says of worlds that are wrong: here by a check that is made to fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use streamer_sim::{Act, History, Plan, Report, Sim};

/// Nobody may ever have a request of this id: it stands for a bug that shows with one request of one client.
fn without(id: &'static str) -> impl Fn(&History) -> Result<(), String> + Send + Sync {
    move |history| {
        let found = history.requests.iter().find(|request| request.id == id && request.status.is_some());
        found.map_or(Ok(()), |request| Err(format!("{} came to {:?}", request.key, request.status)))
    }
}

fn asks(plan: &Plan) -> Vec<&str> {
    let steps = plan.clients.iter().flat_map(|client| &client.steps);
    let asked = steps
        .filter_map(|step| if let Act::Request { id, .. } = &step.act { Some(id.as_str()) } else { None });
    asked.collect()
}

#[test]
fn a_world_that_is_wrong_is_shrunk_and_told() {
    // The smallest seed's plan would do: but what is drawn changes, and this takes as long as it is large.
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
    let sim = Sim::default().check("no such request", without("r2"));
    let shrunk = sim.shrink(Plan::from_json(&plan.to_string()).unwrap(), "no such request");
    assert_eq!(asks(&shrunk.plan), ["r2"]);
    assert_eq!((shrunk.plan.clients.len(), shrunk.plan.faults.len()), (1, 0));
    // It is wrong in the same way from its file, and told.
    let again = sim.run_plan(Plan::from_json(&shrunk.plan.to_json()).unwrap());
    assert!(again.breaks("no such request"));
    let told = again.to_string();
    for expected in ["The world of seed", "no such request", "new → PENDING", "WRONG"] {
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
    let said = catch_unwind(AssertUnwindSafe(|| again.assert())).unwrap_err();
    assert_eq!(said.downcast_ref::<String>(), Some(&told));
}

#[test]
fn a_report_is_the_same_however_many_threads_there_are() {
    let told = |threads: usize| {
        let sim = Sim::default()
            .check("no requests", |_| Err("there is a world".to_owned()))
            .seeds(0..2)
            .threads(threads);
        let Report { worlds, failures, lasted, .. } = sim.run_while(|_| true);
        format!("{worlds} {failures:?} {lasted:?}")
    };
    let one = told(1);
    assert!(one.starts_with("2 ") && one.contains("there is a world"), "{one}");
    assert_eq!(one, told(3));
}

#[test]
fn it_stops_when_it_is_told_to_and_ends_what_has_begun() {
    let report = Sim::default().seeds(0..1_000).threads(2).run_while(|so_far| so_far.worlds < 1);
    assert!((1..10).contains(&report.worlds), "{}", report.worlds);
    let none = Sim::default().seeds(0..0).run();
    let said = catch_unwind(AssertUnwindSafe(|| none.assert())).unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains("no world was made"));
}

#[test]
fn the_summary_counts_what_was_reached_and_names_what_was_not() {
    let report = Sim::default().seeds(0..2).run_while(|_| true);
    let summary = report.summary().to_string();
    for expected in ["2 worlds in", "new → PENDING", "PENDING → PROCESSING", "acknowledgment", "\nnever: "]
    {
        assert!(summary.contains(expected), "{expected} is not in:\n{summary}");
    }
    // A shard splits in hardly any world.
    assert_eq!(
        summary.contains("split_shard  "),
        !report.summary().never().contains(&"split_shard".to_owned())
    );
}
