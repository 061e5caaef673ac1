//! What handlers do.

use streamer::ports::Timestamp;

use super::owner::request_of;
use super::rules;
use super::world_model::WorldModel;
use crate::event::{HandlerEvent, HandlerPhase};

impl WorldModel {
    /// A handler has begun to run a request, or is done with it.
    pub(super) fn handler_event(&mut self, at: Timestamp, event: &HandlerEvent) {
        let key = request_of(&event.tenant, &event.user, &event.id);
        let key = key.as_str();
        // What is quick leaves no record, and may bear the same id.
        if event.phase != HandlerPhase::Begin || self.sent.get(key).is_none_or(|sent| sent.may_be_quick) {
            return;
        }
        let Some(request) = self.requests.get_mut(key) else {
            let message = "its handler runs, and nothing is stored of it".to_owned();
            self.found.broken(rules::RUNS_ONCE, at, Some(key), message);
            return;
        };
        let run = (event.attempt, event.continuations);
        let times = request.runs.entry(run).or_default();
        *times += 1;
        let is_claimed = request.claims.values().any(|claim| (claim.attempt, claim.continuations) == run);
        if *times > 1 || !is_claimed {
            let (attempt, continuations) = run;
            let message = format!(
                "its handler runs as attempt {attempt} with {continuations} continuations, for the {times}. time, \
                 and is {}claimed for it",
                if is_claimed { "" } else { "not " }
            );
            self.found.broken(rules::RUNS_ONCE, at, Some(key), message);
        }
    }
}
