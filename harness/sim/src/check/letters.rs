//! Checks of the dead-letter queue.

use std::collections::BTreeSet;

use streamer::dead_letters::DeadLetter;
use streamer::ports::Timestamp;

use super::owner::request_of;
use super::rules;
use super::world_model::{FinalState, WorldModel};

impl WorldModel {
    pub(super) fn letter_sent(&mut self, at: Timestamp, body: &str) {
        let Ok(letter) = serde_json::from_str::<DeadLetter>(body) else {
            self.found.broken(
                rules::LETTERS_ARE_FAILURES,
                at,
                None,
                format!("message is not a dead letter: {body}"),
            );
            return;
        };
        let key = request_of(letter.tenant.as_str(), letter.user.as_str(), letter.request_id.as_str());
        let wrong = match self.requests.get(&key) {
            None => Some("the request does not exist".to_owned()),
            Some(request) => request.mismatch_of(&letter),
        };
        if let Some(wrong) = wrong {
            let message = format!("dead letter {} was sent, but {wrong}", letter.id);
            self.found.broken(rules::LETTER_MATCHES_A_FAILURE, at, Some(&key), message);
        }
        self.letters.insert(letter.id);
    }

    /// Checks that the dead letters in the queue and the failed requests are the same set.
    pub(super) fn check_letters(&mut self, last: &FinalState) {
        let in_queue: BTreeSet<String> = last
            .dead_letters
            .iter()
            .filter_map(|body| serde_json::from_str::<DeadLetter>(body).ok())
            .map(|letter| letter.id)
            .collect();
        let expected: Vec<(String, String)> = self
            .requests
            .iter()
            .filter_map(|(key, request)| Some((key.clone(), request.letter_id()?)))
            .collect();
        for (key, id) in &expected {
            if !in_queue.contains(id) {
                let message = format!("request has failed, but the queue has no dead letter {id}");
                self.found.broken(rules::LETTERS_ARE_FAILURES, last.at, Some(key), message);
            }
        }
        let expected: BTreeSet<&String> = expected.iter().map(|(_, id)| id).collect();
        // The model no longer contains expired requests. So a dead letter is also allowed if the checker
        // accepted it when it was sent.
        let strays = in_queue.iter().filter(|id| !expected.contains(id) && !self.letters.contains(*id));
        let strays: Vec<String> = strays.cloned().collect();
        if !strays.is_empty() {
            let message = format!("dead letters {strays:?} belong to no failed request");
            self.found.broken(rules::LETTERS_ARE_FAILURES, last.at, None, message);
        }
    }
}
