//! Benchmark of the simulator: the time for one world (a simulated run) of about fifty requests, with its
//! injected faults. A world runs on one thread and never waits, so the measured time is CPU time.

use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use streamer_sim::{Act, Plan, Sim};

/// The allocator that the `streamer` command uses.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Number of different worlds to run in turn, so that no single world dominates the result.
const WORLDS: usize = 40;

criterion_group!(benches, worlds);
criterion_main!(benches);

/// Returns the number of requests that a plan's clients send, including repeated requests.
fn requests(plan: &Plan) -> usize {
    let steps = plan.clients.iter().flat_map(|client| &client.steps);
    steps.filter(|step| matches!(step.act, Act::Request { .. })).count()
}

fn worlds(criterion: &mut Criterion) {
    let sim = Sim::default();
    let plans = (0..).map(|seed| sim.plan(seed)).filter(|plan| (45..=55).contains(&requests(plan)));
    let plans: Vec<_> = plans.take(WORLDS).collect();
    let next = AtomicUsize::new(0);
    criterion.bench_function("sim/world_of_50_requests", |bencher| {
        bencher.iter(|| {
            let plan = &plans[next.fetch_add(1, Ordering::Relaxed) % plans.len()];
            sim.run_plan(plan.clone()).lasted
        });
    });
}
