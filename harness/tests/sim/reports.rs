//! What the simulator says of worlds that are wrong: here by a check that is made to fail.

use streamer_harness::sim::{Act, History, Plan, Sim};

/// Nobody may ever have a request of this id: it stands for a bug that shows with one request of one client.
fn without(id: &'static str) -> impl Fn(&History) -> Result<(), String> + Send + Sync {
    move |history| {
        let found = history.requests.iter().find(|request| request.id == id && request.status.is_some());
        found.map_or(Ok(()), |request| Err(format!("{} came to {:?}", request.key, request.status)))
    }
}

fn asks(plan: &Plan) -> Vec<&str> {
    let steps = plan.clients.iter().flat_map(|client| &client.steps);
    let asked = steps.filter_map(|step| match &step.act {
        Act::Ask { id, .. } => Some(id.as_str()),
        _ => None,
    });
    asked.collect()
}

/// An id of this seed's requests that ends in the table.
fn queued(sim: &Sim, seed: u64) -> &'static str {
    let history = sim.run_seed(seed).history();
    let queued = history.requests.iter().find(|request| request.status.is_some()).unwrap();
    Box::leak(queued.id.clone().into_boxed_str())
}

#[test]
fn a_world_that_is_wrong_is_shrunk_and_told() {
    let id = queued(&Sim::default(), 1);
    let sim = Sim::default().check("no such request", without(id)).seeds(1..5).threads(2);
    let report = sim.run();
    let failure = report.smallest.as_ref().unwrap();
    assert_eq!((failure.seed, failure.violation.rule.as_str()), (1, "no such request"));
    assert_eq!(asks(&failure.plan), [id]);
    assert_eq!((failure.plan.clients.len(), failure.plan.faults.len()), (1, 0));
    // It is wrong in the same way from its file.
    let again = Plan::from_json(&failure.plan.to_json()).unwrap();
    let world = sim.run_plan(again);
    assert!(world.breaks("no such request"));
    assert_eq!(world.timeline().to_string(), failure.timeline);
    let told = failure.to_string();
    for expected in
        ["Seed 1 is wrong", "no such request", "new → PENDING", "WRONG", "\"seed\"", "run_seed(1)"]
    {
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
}
