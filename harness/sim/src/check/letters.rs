//! What is sent to the dead-letter queue.

use std::collections::BTreeSet;

use streamer::dead_letters::DeadLetter;
use streamer::ports::Timestamp;

use super::owner::request_of;
use super::rules;
use super::world_model::{FinalState, WorldModel};

impl WorldModel {
    pub(super) fn letter_sent(&mut self, at: Timestamp, body: &str) {
        let Ok(letter) = serde_json::from_str::<DeadLetter>(body) else {
            self.found.broken(rules::LETTERS_ARE_FAILURES, at, None, format!("no letter is: {body}"));
            return;
        };
        let key = request_of(letter.tenant.as_str(), letter.user.as_str(), letter.request_id.as_str());
        let wrong = match self.requests.get(&key) {
            None => Some("there is no such request".to_owned()),
            Some(request) => request.mismatch_of(&letter),
        };
        if let Some(wrong) = wrong {
            let message = format!("the letter {} is sent, and {wrong}", letter.id);
            self.found.broken(rules::LETTER_AFTER_END, at, Some(&key), message);
        }
        self.letters.insert(letter.id);
    }

    /// The letters are the failures, as sets.
    pub(super) fn letters_are_failures(&mut self, last: &FinalState) {
        let lying: BTreeSet<String> = last
            .dead_letters
            .iter()
            .filter_map(|body| serde_json::from_str::<DeadLetter>(body).ok())
            .map(|letter| letter.id)
            .collect();
        let owed: Vec<(String, String)> = self
            .requests
            .iter()
            .filter_map(|(key, request)| Some((key.clone(), request.letter_id()?)))
            .collect();
        for (key, id) in &owed {
            if !lying.contains(id) {
                let message = format!("it has failed, and there is no letter {id}");
                self.found.broken(rules::LETTERS_ARE_FAILURES, last.at, Some(key), message);
            }
        }
        let owed: BTreeSet<&String> = owed.iter().map(|(_, id)| id).collect();
        // Of a request that has expired meanwhile nothing is known any more, but that its letter was sent.
        let strays = lying.iter().filter(|id| !owed.contains(id) && !self.letters.contains(*id));
        let strays: Vec<String> = strays.cloned().collect();
        if !strays.is_empty() {
            let message = format!("the letters {strays:?} are of no request that has failed");
            self.found.broken(rules::LETTERS_ARE_FAILURES, last.at, None, message);
        }
    }
}
