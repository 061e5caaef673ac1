//! Replaces the simulator's own jobs in a plan with requests to a user's app.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::chance::Chance;
use super::job::ACTIONS;
use super::plan::{Act, Plan};

/// Actions that simulated clients may request, each with a generator of payloads.
#[derive(Clone, Default)]
pub(super) struct AppRequests(Vec<AppRequest>);

#[derive(Clone)]
struct AppRequest {
    action: String,
    payload: Arc<dyn Fn(&mut Chance) -> Value + Send + Sync>,
}

impl fmt::Debug for AppRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|request| &request.action)).finish()
    }
}

impl AppRequests {
    pub(super) fn add(
        &mut self,
        action: impl Into<String>,
        payload: impl Fn(&mut Chance) -> Value + Send + Sync + 'static,
    ) {
        self.0.push(AppRequest { action: action.into(), payload: Arc::new(payload) });
    }

    /// Replaces each job that a client requests with one of these requests, drawn from the plan's seed. If a
    /// user sends a job twice under one id, both are replaced by the same request, so that the second message
    /// remains a repeat of the first.
    pub(super) fn replace_jobs(&self, plan: &mut Plan) {
        if self.0.is_empty() {
            return;
        }
        let mut chance = Chance::new(plan.seed, "asks");
        let mut drawn: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for client in &mut plan.clients {
            for step in &mut client.steps {
                let Act::Request { id, action, payload } = &mut step.act else { continue };
                if !ACTIONS.contains(&action.as_str()) {
                    continue;
                }
                let identity = format!("{}/{}/{id}/{payload}", client.tenant, client.user);
                let (new_action, new_payload) = drawn.entry(identity).or_insert_with(|| {
                    let request = chance.one_of(&self.0);
                    (request.action.clone(), (request.payload)(&mut chance))
                });
                (*action, *payload) = (new_action.clone(), new_payload.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_job_is_replaced_by_an_app_request_and_a_repeated_job_by_the_same_one() {
        let mut requests = AppRequests::default();
        requests.add("print", |chance| json!({"pages": chance.number(1..=1_000_000)}));
        let mut plan = Plan::from_seed(3);
        for client in &mut plan.clients {
            client.steps.extend(client.steps.clone());
        }
        requests.replace_jobs(&mut plan);
        let sent = |from: &Plan| -> Vec<(String, Value)> {
            let steps = from.clients.iter().flat_map(|client| &client.steps);
            let sent = steps.filter_map(|step| {
                let Act::Request { action, payload, .. } = &step.act else { return None };
                Some((action.clone(), payload.clone()))
            });
            sent.collect()
        };
        let (first, all) = (sent(&plan), sent(&plan).len());
        assert!(first.iter().all(|(action, _)| !ACTIONS.contains(&action.as_str())));
        let mut again = Plan::from_seed(3);
        requests.replace_jobs(&mut again);
        let once = sent(&again);
        assert!(!once.is_empty() && once.len() * 2 == all);
        for request in once {
            assert!(
                first.iter().filter(|other| **other == request).count() >= 2,
                "both messages of a repeated job are replaced by the same request: {request:?}"
            );
        }
    }
}
