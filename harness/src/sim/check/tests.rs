use super::super::plan::Plan;
use super::super::world::{Cast, run};

#[test]
fn probe() {
    let from: u64 = std::env::var("FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    for seed in from..from + n {
        let plan = Plan::of_seed(seed);
        let started = std::time::Instant::now();
        match std::panic::catch_unwind(|| run(&plan, &Cast::Jobs)) {
            Ok(Ok(world)) => {
                println!(
                    "seed {seed}: {} events, {:?}, {} violations, faults {:?}",
                    world.events.len(),
                    started.elapsed(),
                    world.violations.len(),
                    plan.faults.iter().map(|f| (f.kind, f.rate)).collect::<Vec<_>>()
                );
                for v in world.violations.iter().take(6) {
                    println!(
                        "   {} @{} {:?}: {}",
                        v.rule,
                        v.at,
                        v.request,
                        v.message.chars().take(700).collect::<String>()
                    );
                }
            }
            Ok(Err(error)) => println!("seed {seed}: {error}"),
            Err(_) => println!("seed {seed}: panicked"),
        }
    }
}
