//! Derives a plan from a seed.
//!
//! The character of the world is drawn first, and the world's events from that character. In most worlds, a
//! few kinds of events occur often, and these kinds differ between worlds. If all events were drawn from one
//! distribution, all worlds would be similar, and combinations of three rare events would never occur.

mod clients;
mod faults;
mod jobs;
mod random;
mod settings;
mod span;

use jobs::Jobs;
use span::Span;

use super::chance;
use super::plan::Plan;

impl Plan {
    /// Derives the plan of a seed. The same seed always gives the same plan.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = chance::rng(seed, "plan");
        let span = Span::draw(&mut rng);
        let faults_until_ms = span.faults_until_ms(&mut rng);
        let jobs = Jobs::draw(&mut rng, span);
        let clients = clients::draw(&mut rng, span, faults_until_ms, &jobs);
        let stage = settings::draw(&mut rng, span, &clients);
        let faults = faults::draw(&mut rng, faults_until_ms);
        Self { seed, faults_until_ms, stage, clients, faults }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::job::Job;
    use super::super::plan::{Act, FaultKind};
    use super::*;

    fn plans(seeds: u64) -> impl Iterator<Item = Plan> {
        (0..seeds).map(Plan::from_seed)
    }

    #[test]
    fn one_seed_always_gives_the_same_plan_and_plan_file() {
        for plan in plans(200) {
            assert_eq!(Plan::from_seed(plan.seed), plan);
            assert_eq!(
                Plan::from_json(&plan.to_json()).unwrap(),
                plan,
                "seed {}: the plan read from its file equals the drawn plan",
                plan.seed
            );
        }
    }

    #[test]
    fn drawn_plans_are_within_their_bounds() {
        for plan in plans(1_000) {
            let seed = plan.seed;
            assert!((1..=6).contains(&plan.clients.len()), "seed {seed}: the plan has 1 to 6 clients");
            for client in &plan.clients {
                assert!(
                    client.steps.iter().is_sorted_by_key(|step| step.at_ms),
                    "seed {seed}: steps are sorted by time"
                );
                let last = client.steps.last().map_or(0, |step| step.at_ms);
                assert!(
                    last <= plan.faults_until_ms,
                    "seed {seed}: no step is later than the end of the faults: {last} ms"
                );
            }
            for fault in &plan.faults {
                assert!(
                    (0.0..=1.0).contains(&fault.rate) && fault.rate > 0.0,
                    "seed {seed}: the rate is above 0 and at most 1: {fault:?}"
                );
                assert!(
                    fault.from_ms < fault.until_ms.min(plan.faults_until_ms),
                    "seed {seed}: the fault begins before its end: {fault:?}"
                );
            }
            let requests = requests_of(&plan);
            assert!((5..=200).contains(&requests), "seed {seed}: the plan has 5 to 200 requests: {requests}");
        }
    }

    fn requests_of(plan: &Plan) -> usize {
        let steps = plan.clients.iter().flat_map(|client| &client.steps);
        steps.filter(|step| matches!(step.act, Act::Request { .. })).count()
    }

    #[test]
    fn plans_of_a_thousand_seeds_contain_every_fault_kind_client_action_and_job_step() {
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
                let Act::Request { payload, .. } = &step.act else { continue };
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
        assert!((25..=100).contains(&quiet), "25 to 100 of 1,000 plans have no faults: {quiet}");
        let kinds = FaultKind::ALL.iter().map(|kind| kind.name());
        let others = [
            "connect",
            "close",
            "vanish",
            "cut_off",
            "request",
            "cancel",
            "subscribe",
            "status",
            "send_text",
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
            assert!(
                seen.get(kind).is_some_and(|times| *times >= 10),
                "{kind} occurs at least 10 times: {seen:?}"
            );
        }
    }
}
