//! What clients ask of a user's own app, in place of the simulator's jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::chance::Chance;
use super::jobs::ACTIONS;
use super::plan::{Act, Plan};

/// What may be asked for.
#[derive(Clone, Default)]
pub(super) struct Asks(Vec<Ask>);

#[derive(Clone)]
struct Ask {
    action: String,
    payload: Arc<dyn Fn(&mut Chance) -> Value + Send + Sync>,
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|ask| &ask.action)).finish()
    }
}

impl Asks {
    pub(super) fn add(
        &mut self,
        action: impl Into<String>,
        payload: impl Fn(&mut Chance) -> Value + Send + Sync + 'static,
    ) {
        self.0.push(Ask { action: action.into(), payload: Arc::new(payload) });
    }

    /// Has clients ask for these instead of jobs. What was the same request twice is so still.
    pub(super) fn replace_jobs(&self, plan: &mut Plan) {
        if self.0.is_empty() {
            return;
        }
        let mut chance = Chance::new(plan.seed, "asks");
        let mut drawn: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for client in &mut plan.clients {
            for step in &mut client.steps {
                let Act::Ask { id, action, payload } = &mut step.act else { continue };
                if !ACTIONS.contains(&action.as_str()) {
                    continue;
                }
                let same = format!("{}/{}/{id}/{payload}", client.tenant, client.user);
                let (instead, with) = drawn.entry(same).or_insert_with(|| {
                    let ask = chance.one_of(&self.0);
                    (ask.action.clone(), (ask.payload)(&mut chance))
                });
                (*action, *payload) = (instead.clone(), with.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_become_what_the_app_knows_and_repeats_stay_repeats() {
        let mut asks = Asks::default();
        asks.add("print", |chance| json!({"pages": chance.number(1..=1_000_000)}));
        let mut plan = Plan::of_seed(3);
        for client in &mut plan.clients {
            client.steps.extend(client.steps.clone());
        }
        asks.replace_jobs(&mut plan);
        let asked = |from: &Plan| -> Vec<(String, Value)> {
            let steps = from.clients.iter().flat_map(|client| &client.steps);
            let asked = steps.filter_map(|step| {
                let Act::Ask { action, payload, .. } = &step.act else { return None };
                Some((action.clone(), payload.clone()))
            });
            asked.collect()
        };
        let (first, all) = (asked(&plan), asked(&plan).len());
        assert!(first.iter().all(|(action, _)| !ACTIONS.contains(&action.as_str())));
        let mut again = Plan::of_seed(3);
        asks.replace_jobs(&mut again);
        let once = asked(&again);
        assert!(!once.is_empty() && once.len() * 2 == all);
        for ask in once {
            assert!(first.iter().filter(|other| **other == ask).count() >= 2, "{ask:?}");
        }
    }
}
