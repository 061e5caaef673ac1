//! Shrinks a plan that breaks a rule: removes clients, faults and steps, and shortens jobs, while the plan
//! still breaks the rule.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::plan::{Act, Plan};
use super::pool::{Pool, with_pool};
use super::runner::real_time;

/// Result of shrinking a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shrunk {
    /// Smallest plan found that still breaks the rule.
    pub plan: Plan,
    /// Number of plans that the search tried, not counting the original plan.
    pub tried: u32,
}

/// Largest number of plans that one search tries.
const MAX_TRIES: u32 = 400;
/// Real time after which a search returns the smallest plan found so far.
const PATIENCE: Duration = Duration::from_mins(2);

pub(super) fn shrink(plan: Plan, threads: usize, breaks: impl Fn(&Plan) -> bool + Sync) -> Shrunk {
    with_pool(threads, breaks, |pool| {
        let mut search = Search { best: plan, tried: 0, begun: real_time(), pool };
        loop {
            let before = search.best.clone();
            for part in PLAN_LISTS {
                search.leave_out(part);
            }
            for simpler in SIMPLER {
                search.simplify(*simpler);
            }
            if search.best == before || search.is_over() {
                return Shrunk { plan: search.best, tried: search.tried };
            }
        }
    })
}

struct Search<'a> {
    best: Plan,
    tried: u32,
    begun: Instant,
    pool: &'a Pool<Plan, bool>,
}

/// Kind of list in a plan, such as the list of clients, from which the search removes members.
struct PlanList {
    len: fn(&Plan) -> usize,
    without: fn(&mut Plan, Range<usize>),
    /// Number of seeds with which each smaller plan is tried. Removing a member shifts the random draws of
    /// the others, so the smaller plan may break the rule only with a different seed.
    seeds: u64,
}

/// Kinds of lists to shorten, in this order. The lists with the largest members come first.
const PLAN_LISTS: &[PlanList] = &[
    PlanList {
        len: |plan| plan.clients.len(),
        without: |plan, range| drop(plan.clients.drain(range)),
        seeds: 3,
    },
    PlanList {
        len: |plan| plan.faults.len(),
        without: |plan, range| drop(plan.faults.drain(range)),
        seeds: 3,
    },
    PlanList {
        len: |plan| plan.clients.iter().map(|client| client.steps.len()).sum(),
        without: |plan, range| {
            let mut at = 0..;
            for client in &mut plan.clients {
                client.steps.retain(|_| !at.next().is_some_and(|at| range.contains(&at)));
            }
        },
        seeds: 2,
    },
    PlanList {
        len: |plan| job_steps(&mut plan.clone()).iter().map(|steps| steps.len()).sum(),
        without: |plan, range| {
            let mut at = 0..;
            for steps in job_steps(plan) {
                steps.retain(|_| !at.next().is_some_and(|at| range.contains(&at)));
            }
        },
        seeds: 1,
    },
    PlanList {
        len: |plan| plan.stage.variables.len(),
        without: |plan, range| {
            let mut at = 0..;
            plan.stage.variables.retain(|_, _| !at.next().is_some_and(|at| range.contains(&at)));
        },
        seeds: 1,
    },
    PlanList {
        len: |plan| plan.stage.concurrency.len(),
        without: |plan, range| {
            let mut at = 0..;
            plan.stage.concurrency.retain(|_, _| !at.next().is_some_and(|at| range.contains(&at)));
        },
        seeds: 1,
    },
];

/// Returns the step lists of the simulator's own jobs, in the order of the plan.
fn job_steps(plan: &mut Plan) -> Vec<&mut Vec<Value>> {
    let steps = plan.clients.iter_mut().flat_map(|client| &mut client.steps);
    let payloads =
        steps.filter_map(
            |step| if let Act::Request { payload, .. } = &mut step.act { Some(payload) } else { None },
        );
    payloads.filter_map(|payload| payload.get_mut("steps")?.as_array_mut()).collect()
}

/// Simplifications of a whole plan.
const SIMPLER: &[fn(&mut Plan)] = &[
    |plan| plan.stage.shards = 0,
    |plan| plan.stage.shard_lifetime_ms = 0,
    |plan| plan.stage.cancel_on_disconnect = false,
    |plan| plan.faults_until_ms /= 2,
    |plan| scale(plan, 0, 1),
    |plan| scale(plan, 1, 2),
    |plan| plan.faults.iter_mut().for_each(|fault| fault.from_ms = 0),
    |plan| plan.faults.iter_mut().for_each(|fault| fault.until_ms = u64::MAX),
    |plan| plan.faults.iter_mut().for_each(|fault| fault.rate = 1.0),
    |plan| waits(plan, 0, 1),
    |plan| waits(plan, 1, 2),
    |plan| {
        plan.clients.iter_mut().flat_map(|client| &mut client.steps).for_each(|step| {
            step.at_ms = step.at_ms / 1_000 * 1_000;
        })
    },
];

/// Scales the times of all client steps by `times / of`.
fn scale(plan: &mut Plan, times: u64, of: u64) {
    for step in plan.clients.iter_mut().flat_map(|client| &mut client.steps) {
        step.at_ms = step.at_ms / of * times;
    }
}

/// Scales the waits of all jobs by `times / of`.
fn waits(plan: &mut Plan, times: u64, of: u64) {
    for step in job_steps(plan).into_iter().flatten() {
        if let Some(wait) = step.get_mut("wait")
            && let Some(ms) = wait.as_u64()
        {
            *wait = (ms / of * times).into();
        }
    }
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.tried >= MAX_TRIES || self.begun.elapsed() >= PATIENCE
    }

    /// Tries to remove halves of the list, then quarters, and finally single members.
    fn leave_out(&mut self, part: &PlanList) {
        let mut size = (part.len)(&self.best);
        while size > 0 && !self.is_over() {
            let mut from = 0;
            while from < (part.len)(&self.best) {
                let len = (part.len)(&self.best);
                let candidates = (from..len).step_by(size).flat_map(|from| {
                    let mut smaller = self.best.clone();
                    (part.without)(&mut smaller, from..len.min(from + size));
                    (0..part.seeds)
                        .map(move |more| Plan { seed: smaller.seed.wrapping_add(more), ..smaller.clone() })
                });
                let candidates: Vec<Plan> = candidates.collect();
                let Some(found) = self.first_that_breaks(candidates) else { break };
                // Members before the removed range were tried and are needed. Continue behind the removed
                // range.
                from += found / usize::try_from(part.seeds).unwrap_or(1) * size;
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn simplify(&mut self, simpler: fn(&mut Plan)) {
        loop {
            let mut candidate = self.best.clone();
            simpler(&mut candidate);
            if candidate == self.best || self.first_that_breaks(vec![candidate]).is_none() {
                return;
            }
        }
    }

    /// Chooses the first candidate that still breaks the rule as the best plan so far. Returns the
    /// candidate's index, or `None` if no candidate breaks the rule.
    ///
    /// Candidates are tried concurrently, but the first in order is chosen, so that the result does not
    /// depend on the number of threads.
    fn first_that_breaks(&mut self, candidates: Vec<Plan>) -> Option<usize> {
        let mut done = 0;
        for some in candidates.chunks(self.pool.len()) {
            if self.is_over() {
                return None;
            }
            let broken = self.pool.do_all(some);
            let found = broken.iter().position(|breaks| *breaks);
            self.tried += u32::try_from(found.map_or(some.len(), |at| at + 1)).unwrap_or(u32::MAX);
            if let Some(found) = found {
                self.best = some[found].clone();
                return Some(done + found);
            }
            done += some.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ClientPlan, FaultKind, FaultPlan, StagePlan, Step};

    fn large() -> Plan {
        let step = |at: u64| {
            let payload = json!({"steps": [{"wait": 40}, {"wait": 80}, {"report": 1.0}]});
            Step {
                at_ms: at * 1_500,
                act: Act::Request { id: format!("r{at}"), action: "work".into(), payload },
            }
        };
        let client = |user: usize| -> ClientPlan {
            let steps: Vec<Step> = (0..20).map(step).collect();
            let client = json!({"user": format!("user{user}"), "tenant": "acme", "steps": steps});
            serde_json::from_value(client).unwrap()
        };
        let fault = |kind: &FaultKind| FaultPlan { kind: *kind, rate: 0.1, from_ms: 10, until_ms: 90 };
        Plan {
            seed: 7,
            faults_until_ms: 60_000,
            stage: StagePlan {
                variables: [("LEASE_MS".to_owned(), "30000".to_owned())].into(),
                shards: 4,
                ..StagePlan::default()
            },
            clients: (0..6).map(client).collect(),
            faults: FaultKind::ALL.iter().map(fault).collect(),
        }
    }

    fn has_request(plan: &Plan, user: &str, wanted: &str) -> bool {
        let clients = plan.clients.iter().filter(|client| client.user == user);
        clients
            .flat_map(|client| &client.steps)
            .any(|step| matches!(&step.act, Act::Request { id, .. } if id == wanted))
    }

    #[test]
    fn shrunk_plan_keeps_only_the_parts_that_break_the_rule() {
        let breaks = |plan: &Plan| {
            let kills = plan.faults.iter().any(|fault| fault.kind == FaultKind::Kill);
            kills && has_request(plan, "user2", "r3") && has_request(plan, "user5", "r17")
        };
        let Shrunk { plan, tried } = shrink(large(), 3, breaks);
        let users: Vec<_> =
            plan.clients.iter().map(|client| (client.user.as_str(), client.steps.len())).collect();
        assert_eq!(users, [("user2", 1), ("user5", 1)]);
        assert_eq!(plan.faults.len(), 1);
        assert_eq!((plan.faults[0].rate, plan.faults_until_ms), (1.0, 0));
        assert_eq!(plan.stage, StagePlan::default());
        assert!(plan.clients.iter().flat_map(|client| &client.steps).all(|step| step.at_ms == 0));
        let jobs = job_steps(&mut plan.clone()).iter().map(|steps| steps.len()).sum::<usize>();
        assert_eq!(jobs, 0);
        assert!(tried < MAX_TRIES, "the search stays below its limit: {tried}");
        // The result does not depend on the number of threads.
        assert_eq!(shrink(large(), 1, breaks), shrink(large(), 8, breaks));
    }

    #[test]
    fn shrinking_stops_at_its_limit_with_a_plan_that_breaks_the_rule() {
        // About a third of all plans break this rule, depending on the bytes of the plan.
        let breaks = |plan: &Plan| {
            let text = plan.to_json();
            *plan == large()
                || text.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)) % 3 == 0
        };
        let Shrunk { plan, tried } = shrink(large(), 2, breaks);
        assert!(
            breaks(&plan) && tried <= MAX_TRIES,
            "the plan breaks the rule, and the search stays within its limit: {tried}"
        );
        let stays = shrink(large(), 2, |plan| *plan == large());
        assert_eq!(stays.plan, large());
    }
}
