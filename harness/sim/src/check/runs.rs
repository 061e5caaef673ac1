//! Checks of the runs of handlers.

use streamer::ports::Timestamp;

use super::owner::request_of;
use super::rules;
use super::world_model::WorldModel;
use crate::event::{HandlerEvent, HandlerPhase};

impl WorldModel {
    /// Checks that a handler starts only for a stored and claimed request, and only once for each attempt and
    /// continuation.
    pub(super) fn handler_event(&mut self, at: Timestamp, event: &HandlerEvent) {
        let key = request_of(&event.tenant, &event.user, &event.id);
        let key = key.as_str();
        // Skips each request that may be quick: a quick request is not stored, and may have the same id as a
        // queued request.
        if event.phase != HandlerPhase::Begin || self.sent.get(key).is_none_or(|sent| sent.may_be_quick) {
            return;
        }
        let Some(request) = self.requests.get_mut(key) else {
            let message = "the handler runs, but the request is not stored".to_owned();
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
                "handler start number {times} for attempt {attempt} with {continuations} continuations, a run that is \
                 {}claimed",
                if is_claimed { "" } else { "not " }
            );
            self.found.broken(rules::RUNS_ONCE, at, Some(key), message);
        }
    }
}
