//! Deterministic simulator of a whole stage: tables, streams, functions, queues, gateway and clients run on
//! virtual time while faults are injected.
//!
//! [`Sim`] runs the simulations. One simulated run is called a world. A world is made from a [`Plan`], which
//! is derived from a seed or read from a file. A [`World`] holds the result of one run, and a [`Report`]
//! holds the result of many runs.

mod app_requests;
mod chance;
mod check;
mod client;
mod draw;
mod event;
mod execution;
mod handlers;
mod history;
mod inject;
mod job;
mod panics;
mod plan;
mod plan_file;
mod pool;
mod recorder;
mod report;
mod runner;
mod shrink;
mod simulator;
mod summary;
mod tally;
mod timeline;
mod warm_up;
mod world;

pub use chance::Chance;
pub use check::Violation;
pub use history::{History, ReceivedFrame, RequestHistory};
pub use plan::{Act, ClientPlan, FaultKind, FaultPlan, Plan, StagePlan, Step};
pub use plan_file::PlanError;
pub use report::{Failure, Report};
pub use shrink::Shrunk;
pub use simulator::Sim;
pub use summary::Summary;
pub use timeline::Timeline;
pub use world::World;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_executed_twice_gives_identical_traces() {
        let plan = Plan::from_seed(7);
        let run = || {
            execution::execute(&plan, &execution::AppUnderTest::Jobs, &recorder::Until::End)
                .expect("the stage starts")
        };
        let (first, second) = (run(), run());
        let (first_trace, second_trace) = (event::trace(&first.events), event::trace(&second.events));
        let differs = first_trace.lines().zip(second_trace.lines()).position(|(one, two)| one != two);
        if let Some(at) = differs {
            let lines =
                |text: &str| text.lines().skip(at.saturating_sub(3)).take(5).collect::<Vec<_>>().join("\n");
            panic!(
                "trace line {at} differs between the two runs:\n{}\n\n{}",
                lines(&first_trace),
                lines(&second_trace)
            );
        }
        assert_eq!(first_trace.len(), second_trace.len());
        assert_eq!(first.violations, []);
        assert!(first.events.len() > 100);
    }
}
