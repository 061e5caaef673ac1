//! A plan for a seed: worlds of many shapes.
//!
//! What a world is like is drawn first, and what happens in it from that: most seeds have a few things happen often, and each
//! has others. Were everything drawn alike, all worlds would be alike, and what takes three rare things would never happen.

mod asks;
mod faults;
mod people;
mod settings;

use fastrand::Rng;
use serde_json::Value;

use super::chance;
use super::plan::Plan;

/// What a client asks for.
#[derive(Clone, Debug)]
struct Asked {
    action: String,
    payload: Value,
}

/// How long a world is in trouble, and what that leaves room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Span {
    /// Minutes, as almost all: time in which nothing happens costs as much as time in which something does.
    Minutes,
    /// Longer than a connection may be idle, and than one invocation lasts.
    Invocations,
    /// Longer than a connection lives.
    Connections,
}

impl Span {
    fn drawn(rng: &mut Rng) -> Self {
        match rng.u32(0..100) {
            0 => Self::Connections,
            1..=4 => Self::Invocations,
            _ => Self::Minutes,
        }
    }

    fn trouble_ms(self, rng: &mut Rng) -> u64 {
        const MINUTE: u64 = 60_000;
        match self {
            Self::Minutes => ms_of_any_order(rng, 40_000, 480_000),
            Self::Invocations => rng.u64(13 * MINUTE..35 * MINUTE),
            Self::Connections => rng.u64(125 * MINUTE..150 * MINUTE),
        }
    }
}

impl Plan {
    /// The scenario of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = chance::rng(seed, "plan");
        let span = Span::drawn(&mut rng);
        let trouble_ms = span.trouble_ms(&mut rng);
        let jobs = asks::Jobs::drawn(&mut rng, span);
        let clients = people::drawn(&mut rng, span, trouble_ms, &jobs);
        let stage = settings::drawn(&mut rng, span, &clients);
        let faults = faults::drawn(&mut rng, trouble_ms);
        Self { seed, trouble_ms, stage, clients, faults }
    }
}

/// Whether something happens whose probability is this.
fn happens(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}

/// One of these.
fn one_of<T: Clone>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.usize(..these.len())].clone()
}

/// A number between these, small ones as likely as large ones of the same order.
fn of_any_order(rng: &mut Rng, least: f64, most: f64) -> f64 {
    let (least, most) = (least.ln(), most.ln());
    (least + rng.f64() * (most - least)).exp()
}

/// As [`of_any_order`], in whole milliseconds.
fn ms_of_any_order(rng: &mut Rng, least: u32, most: u32) -> u64 {
    let ms = of_any_order(rng, least.into(), most.into());
    // What is between two numbers of 32 bits is one.
    std::time::Duration::from_secs_f64(ms / 1_000.0).as_millis().try_into().unwrap_or(u64::from(most))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::jobs::Job;
    use super::super::plan::{Act, FaultKind};
    use super::*;

    fn plans(seeds: u64) -> impl Iterator<Item = Plan> {
        (0..seeds).map(Plan::of_seed)
    }

    #[test]
    fn a_seed_is_one_plan_and_its_file_is_the_same() {
        for plan in plans(200) {
            assert_eq!(Plan::of_seed(plan.seed), plan);
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan, "seed {}", plan.seed);
        }
    }

    #[test]
    fn every_plan_makes_sense() {
        for plan in plans(1_000) {
            let seed = plan.seed;
            assert!((1..=6).contains(&plan.clients.len()), "seed {seed}");
            for client in &plan.clients {
                assert!(client.steps.iter().is_sorted_by_key(|step| step.at_ms), "seed {seed}");
                let last = client.steps.last().map_or(0, |step| step.at_ms);
                assert!(last <= plan.trouble_ms, "seed {seed}: a step at {last}");
            }
            for fault in &plan.faults {
                assert!((0.0..=1.0).contains(&fault.rate) && fault.rate > 0.0, "seed {seed}: {fault:?}");
                assert!(fault.from_ms < fault.until_ms.min(plan.trouble_ms), "seed {seed}: {fault:?}");
            }
            let asks = asks_of(&plan);
            assert!((5..=200).contains(&asks), "seed {seed}: {asks} requests");
        }
    }

    fn asks_of(plan: &Plan) -> usize {
        let steps = plan.clients.iter().flat_map(|client| &client.steps);
        steps.filter(|step| matches!(step.act, Act::Ask { .. })).count()
    }

    #[test]
    fn many_seeds_together_have_everything_and_none_has_it_all() {
        let (mut seen, mut quiet): (BTreeMap<String, u32>, u32) = (BTreeMap::new(), 0);
        for plan in plans(1_000) {
            quiet += u32::from(plan.faults.is_empty());
            for fault in &plan.faults {
                *seen.entry(fault.kind.name().to_owned()).or_default() += 1;
            }
            for step in plan.clients.iter().flat_map(|client| &client.steps) {
                let act = serde_json::to_value(&step.act).unwrap();
                let name = act.as_str().map(str::to_owned);
                let name = name.or_else(|| act.as_object()?.keys().next().cloned()).unwrap();
                *seen.entry(name).or_default() += 1;
                let Act::Ask { payload, .. } = &step.act else { continue };
                let Ok(job) = serde_json::from_value::<Job>(payload.clone()) else { continue };
                let end = format!("{:?}", job.end);
                let end = end.split([' ', '(']).next().unwrap_or_default().to_owned();
                *seen.entry(end).or_default() += 1;
                for step in &job.steps {
                    let step = format!("{step:?}");
                    *seen.entry(step.split('(').next().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
        }
        assert!((25..=100).contains(&quiet), "{quiet} of 1,000 worlds have no faults");
        let kinds = FaultKind::ALL.iter().map(|kind| kind.name());
        let others = [
            "connect",
            "close",
            "vanish",
            "cut_off",
            "ask",
            "cancel",
            "subscribe",
            "status",
            "say",
            "Succeed",
            "SucceedWith",
            "FailUntil",
            "BreakUntil",
            "RetryAfter",
            "Fail",
            "FailWith",
            "PanicUntil",
            "GoOnUntil",
            "Wait",
            "Report",
            "Flood",
            "Note",
            "Wild",
            "Checkpoint",
            "BigCheckpoint",
        ];
        for kind in kinds.chain(others) {
            assert!(seen.get(kind).is_some_and(|times| *times >= 10), "{kind} comes too seldom: {seen:?}");
        }
    }
}
