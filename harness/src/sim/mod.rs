//! A deterministic simulation of the whole stage: many worlds, each on its own clock and from one seed, in which all
//! goes wrong that can.

mod chance;
mod check;
mod client;
mod draw;
mod jobs;
mod plan;
mod record;
mod trace;
mod trouble;
mod world;

pub use check::Violation;
pub use plan::{Act, ClientPlan, FaultKind, FaultPlan, Plan, StagePlan, Step};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_trace() {
        let plan = Plan::of_seed(7);
        let run = || world::run(&plan, &world::Cast::Jobs).expect("the stage starts");
        let (first, second) = (run(), run());
        let (first_trace, second_trace) = (first.trace(), second.trace());
        let differs = first_trace.lines().zip(second_trace.lines()).position(|(one, two)| one != two);
        if let Some(at) = differs {
            let lines =
                |text: &str| text.lines().skip(at.saturating_sub(3)).take(5).collect::<Vec<_>>().join("\n");
            panic!("line {at} differs:\n{}\n\n{}", lines(&first_trace), lines(&second_trace));
        }
        assert_eq!(first_trace.len(), second_trace.len());
        assert_eq!(first.violations, []);
        assert!(first.events.len() > 100);
    }
}
