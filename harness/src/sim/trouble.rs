//! Has happen what a plan says goes wrong.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::chance;
use super::plan::{FaultKind, FaultPlan, Plan};
use super::record::Recorder;
use crate::faults::{Call, Fault, FaultGuard, Faults};
use crate::stage::Stage;

/// What goes wrong in a world, for as long as it lives.
#[derive(Debug)]
pub(super) struct Trouble {
    faults: JoinSet<()>,
}

/// The most that a call of DynamoDB is late.
const SLOW_CALL: Duration = Duration::from_secs(8);
/// The most that an index lags.
const INDEX_LAG: Duration = Duration::from_secs(10);
/// The most that records are late.
const LATE_RECORDS: Duration = Duration::from_secs(30);
/// The most that a post is late.
const SLOW_POST: Duration = Duration::from_secs(10);

impl Trouble {
    /// Begins with the plan's faults.
    pub(super) fn begin(plan: &Plan, stage: &Stage, _recorder: &Recorder) -> Self {
        let begun = Instant::now();
        let moment = |ms: u64| begun + Duration::from_millis(ms.min(plan.trouble_ms));
        let mut faults = JoinSet::new();
        for fault in &plan.faults {
            let (from, until) = (moment(fault.from_ms), moment(fault.until_ms));
            let (set, rules) = (stage.faults().clone(), rules(fault, plan.seed));
            faults.spawn(async move {
                sleep_until(from).await;
                let _guards = in_force(&set, rules);
                sleep_until(until).await;
            });
        }
        Self { faults }
    }

    /// Nothing goes wrong from now on.
    pub(super) fn end(self) {
        drop(self.faults);
    }
}

fn in_force(faults: &Faults, rules: Vec<Fault>) -> Vec<FaultGuard> {
    rules.into_iter().map(|rule| faults.add(rule)).collect()
}

/// What strikes where a call is made. Each rule has its own chances, which hang on nothing but the plan's seed: a plan that
/// leaves out one fault leaves the others as they were.
fn rules(fault: &FaultPlan, seed: u64) -> Vec<Fault> {
    let rules = match fault.kind {
        FaultKind::Throttle => vec![Fault::throttle(Call::any_dynamodb())],
        FaultKind::FailBefore => vec![Fault::fail(Call::any_dynamodb())],
        FaultKind::FailAfter => vec![Fault::fail_after_apply(Call::any_dynamodb())],
        FaultKind::LoseAnswer => vec![Fault::lose_answer(Call::any_dynamodb())],
        FaultKind::SlowCall => vec![Fault::delay(Call::any_dynamodb(), SLOW_CALL).varied()],
        FaultKind::Conflict => vec![Fault::conflict(Call::any_dynamodb())],
        FaultKind::StaleIndex => vec![Fault::stale(Call::any_dynamodb(), INDEX_LAG).varied()],
        FaultKind::DuplicateRecords => vec![Fault::duplicate(Call::any_records())],
        FaultKind::LateRecords => vec![Fault::delay(Call::any_records(), LATE_RECORDS).varied()],
        FaultKind::FailedReads => vec![Fault::fail(Call::any_records())],
        FaultKind::KillAtCall => {
            [Call::any_dynamodb(), Call::post(), Call::send_message()].map(Fault::kill).into()
        }
        FaultKind::InvokeThrottled => vec![Fault::throttle(Call::any_invoke())],
        FaultKind::InvokeFailed => {
            vec![Fault::fail(Call::any_invoke()), Fault::fail_after_apply(Call::any_invoke())]
        }
        FaultKind::PostGone => vec![Fault::gone(Call::post())],
        FaultKind::PostThrottled => vec![Fault::throttle(Call::post())],
        FaultKind::PostFailed => vec![Fault::fail(Call::post())],
        FaultKind::PostUnanswered => vec![Fault::lose_answer(Call::post())],
        FaultKind::SlowPost => vec![Fault::delay(Call::post(), SLOW_POST).varied()],
        FaultKind::DisconnectLost => vec![Fault::fail(Call::disconnect())],
        FaultKind::QueueFailed => vec![Fault::fail(Call::send_message())],
        FaultKind::QueueUnanswered => {
            vec![Fault::lose_answer(Call::send_message()), Fault::fail_after_apply(Call::send_message())]
        }
        FaultKind::SplitShard
        | FaultKind::Kill
        | FaultKind::Freeze
        | FaultKind::Hang
        | FaultKind::SlowStart
        | FaultKind::FailedStart
        | FaultKind::InvokeTwice
        | FaultKind::HandOverFailed
        | FaultKind::EventLost
        | FaultKind::ClockSkew
        | FaultKind::Deploy => vec![],
    };
    let mut seeds = chance::rng(seed, fault.kind.name());
    let named = |rule: Fault| rule.named(fault.kind.name()).rate(fault.rate).seeded(seeds.u64(..));
    rules.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{What, WorldEvent};
    use super::super::world::{Cast, Outcome, run};
    use super::*;
    use crate::sight::Sight;

    /// How often each fault has struck, as is told of it.
    fn strikes(world: &Outcome, kind: FaultKind) -> usize {
        let is_it = |what: &What| match what {
            What::Fake(Sight::Struck { fault, .. }) => *fault == kind.name(),
            What::World(WorldEvent::Fault { kind: told, .. }) => *told == kind,
            What::Fake(_) | What::Client(..) | What::Handler(_) | What::World(_) => false,
        };
        world.events.iter().filter(|event| is_it(&event.what)).count()
    }

    fn world_with(kind: FaultKind, rate: f64) -> Outcome {
        let fault = FaultPlan { kind, rate, from_ms: 1_000, until_ms: 50_000 };
        let plan = Plan { faults: vec![fault], ..Plan::of_seed(3) };
        run(&plan, &Cast::Jobs).unwrap()
    }

    #[test]
    fn every_fault_strikes_and_one_that_is_never_due_does_not() {
        let (mut silent, mut loud) = (Vec::new(), Vec::new());
        for kind in FaultKind::ALL {
            let began = std::time::Instant::now();
            let n = strikes(&world_with(*kind, 0.4), *kind);
            eprintln!("{kind:?} {n} {:?}", began.elapsed());
            if n == 0 {
                silent.push(kind);
            }
            if strikes(&world_with(*kind, 0.0), *kind) > 0 {
                loud.push(kind);
            }
        }
        assert!(silent.is_empty() && loud.is_empty(), "silent: {silent:?}, loud: {loud:?}");
    }
}
