//! The simulator: what a world of about fifty requests costs, with all that goes wrong in it. A world runs on one thread, so
//! that what passes is CPU time.

use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use streamer_sim::{Act, Plan, Sim};

/// As the `streamer` command has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many worlds there are, so that none of them decides.
const WORLDS: usize = 40;

criterion_group!(benches, worlds);
criterion_main!(benches);

/// How many requests a plan's clients send, those among them that they repeat.
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
