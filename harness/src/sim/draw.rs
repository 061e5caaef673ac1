//! A plan for a seed.

use serde_json::json;

use super::chance;
use super::jobs::{Job, JobStep, WORK};
use super::plan::{Act, ClientPlan, Plan, StagePlan, Step};

impl Plan {
    /// The scenario of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = chance::rng(seed, "plan");
        let client = |user: &str, rng: &mut fastrand::Rng| {
            let mut steps = vec![Step { at_ms: 0, act: Act::Connect }];
            for number in 0..5 {
                let job = Job {
                    estimate_ms: 10_000,
                    steps: vec![JobStep::Wait(rng.u64(0..5_000)), JobStep::Report(50.0)],
                    ..Job::default()
                };
                steps.push(Step {
                    at_ms: rng.u64(0..20_000),
                    act: Act::Ask { id: format!("r{number}"), action: WORK.to_owned(), payload: json!(job) },
                });
            }
            steps.sort_by_key(|step| step.at_ms);
            ClientPlan { user: user.to_owned(), tenant: "acme".to_owned(), permissions: Vec::new(), steps }
        };
        let clients = vec![client("ann", &mut rng), client("bob", &mut rng)];
        Self { seed, trouble_ms: 60_000, stage: StagePlan::default(), clients, faults: Vec::new() }
    }
}
