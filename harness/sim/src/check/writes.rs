//! Checks of all writes to a request, in order.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::store::Status;
use streamer::store::dynamodb::{part_item, request_item};

use super::image::{ItemState, changed, has, subscribers, text};
use super::item::{check_due_item, check_item};
use super::limits::Limits;
use super::owner::Owner;
use super::request_model::{Part, RequestModel};
use super::rules;
use super::violation::Found;
use super::world_model::WorldModel;
use super::write::{Write, check_costs, check_fence, check_seq, check_step};
use streamer_fakes::faults::Caller;

/// Attributes that may change after the terminal write, because they record deliveries, the dead letter and a
/// redrive.
const CHANGEABLE_WHEN_TERMINAL: [&str; 5] =
    ["subscribers", "timer_shard", "timer_at", "dead_letter", "redriven_as"];
/// Attributes of a request's item that never change.
const IDENTITY: [&str; 11] = [
    "client_id",
    "user_id",
    "tenant_id",
    "connection_id",
    "action",
    "payload",
    "payload_part",
    "metadata",
    "max_attempts",
    "created_at",
    "redrive_of",
];

impl WorldModel {
    pub(super) fn wrote(
        &mut self,
        at: Timestamp,
        caller: Option<&Caller>,
        keys: &Value,
        image: Option<&Value>,
    ) {
        let (Some(stored), Some(part)) = (text(keys, request_item::KEY), text(keys, request_item::PART))
        else {
            return;
        };
        let known = self.stored.get(stored).filter(|key| self.requests.contains_key(*key)).cloned();
        if part != request_item::REQUEST_PART {
            // A part item of an unknown request is ignored, because a transaction may write a part item
            // before its request's item.
            if let Some(key) = known {
                self.wrote_part(&key, part, image);
            }
            return;
        }
        let Some(image) = image else {
            if let Some(key) = known {
                self.deleted(at, &key);
            }
            return;
        };
        let key = known.as_deref().unwrap_or(stored);
        let Some(state) = ItemState::of(image) else {
            self.found.broken(
                rules::ITEM_FITS_ITS_STATUS,
                at,
                Some(key),
                format!("item cannot be parsed: {image}"),
            );
            return;
        };
        let is_new = match self.requests.get(key) {
            None => true,
            Some(request) => {
                state.epoch == 0
                    && has(&request.image, "ttl")
                    && request.image.get("created_at") != image.get("created_at")
            }
        };
        let key = if is_new {
            self.queued(at, stored, image, state)
        } else {
            self.changed(at, key, caller, image, state);
            key.to_owned()
        };
        if let Some(request) = self.requests.get_mut(&key) {
            request.note_status();
            check_item(&self.limits, &mut self.found, at, &key, request);
        }
    }

    /// Checks the first write of a request. Its key must be new, or the previous request under the key must
    /// have expired. Returns the request's key in the model.
    fn queued(&mut self, at: Timestamp, stored: &str, image: &Value, state: ItemState) -> String {
        let mut request = RequestModel::new(stored, image, state);
        let name = request.owner.key(&request.id);
        let key = name.as_str();
        let was_sent = self.sent.contains_key(key) || self.senders_without_id.contains(&request.owner);
        if !was_sent {
            let message =
                format!("request {:?} of {:?} is stored, but was never sent", request.id, request.owner);
            self.found.broken(rules::BELONGS_TO_ITS_USER, at, Some(key), message);
        }
        if (state.status, state.attempt, state.continuations, state.epoch) != (Status::Pending, 0, 0, 0) {
            self.found.broken(
                rules::LEGAL_STEP,
                at,
                Some(key),
                format!("new request begins in state {state:?}"),
            );
        }
        let before = self.stored.insert(stored.to_owned(), name.clone());
        if let Some(before) = before.and_then(|before| self.requests.remove(&before)) {
            if !before.has_expired(at + self.limits.skew) {
                let message = "request is queued again before it has expired".to_owned();
                self.found.broken(rules::ONE_REQUEST, at, Some(key), message);
            }
            request.parts = before.parts;
        }
        check_subscribers(&self.owners, &mut self.found, at, key, &request);
        if let Some(other) = self.requests.insert(name.clone(), request) {
            let message = format!(
                "request is queued under the key {stored}, but is already stored under {}",
                other.stored
            );
            self.found.broken(rules::ONE_REQUEST, at, Some(&name), message);
        }
        name
    }

    fn changed(
        &mut self,
        at: Timestamp,
        key: &str,
        caller: Option<&Caller>,
        image: &Value,
        state: ItemState,
    ) {
        let Self { requests, found, limits, open, seemed_gone, faults_ended_at, .. } = self;
        let Some(request) = requests.get_mut(key) else { return };
        check_due_item(found, *faults_ended_at, at, key, request);
        let before = std::mem::replace(&mut request.image, image.clone());
        let changed = changed(&before, image);
        let write =
            Write { at, key, caller, old: request.state, new: state, changed, before: &before, image };
        if let Some(attribute) = IDENTITY.into_iter().find(|attribute| write.has_changed(attribute)) {
            write.breaks(found, rules::ONE_REQUEST, format!("changes `{attribute}`"));
        }
        let has_ended = write.old.status.is_terminal();
        if has_ended {
            let change = write.changed.iter().find(|attribute| !CHANGEABLE_WHEN_TERMINAL.contains(attribute));
            if let Some(attribute) = change {
                let (was, is) = (before.get(*attribute), image.get(*attribute));
                let message =
                    format!("changes `{attribute}` from {was:?} to {is:?} after the terminal write");
                write.breaks(found, rules::TERMINAL_STATE_STAYS, message);
            }
        } else {
            check_step(limits, found, &write, request);
            check_fence(found, &write, request);
            check_seq(found, &write);
        }
        check_costs(limits, found, &write, request);
        let has_end =
            |connection: &str| request.pushed.get(connection).is_some_and(|pushed| pushed.has_terminal_frame);
        let is_dropped = |connection: &&str| {
            open.contains(*connection) && !seemed_gone.contains(*connection) && !has_end(connection)
        };
        let gone = subscribers(&before).filter(|one| !subscribers(image).any(|other| other == *one));
        if let Some(connection) = gone.into_iter().find(is_dropped) {
            write.breaks(
                found,
                rules::SUBSCRIBERS_STAY,
                format!("removes subscriber {connection} before the terminal frame was delivered to it"),
            );
        }
        let ends = !has_ended && state.status.is_terminal();
        let (is_asked, was_asked) = (state.cancel_requested, write.old.cancel_requested);
        let subscribers_change = write.has_changed("subscribers");
        request.state = state;
        if is_asked && !was_asked {
            request.cancel_requested_at = Some(at);
        } else if !is_asked && let Some(asked_at) = request.cancel_requested_at.take() {
            check_cancel_time(limits, found, at, key, asked_at);
        }
        if ends {
            request.ended_at = Some(at);
        }
        if ends || (is_asked && !was_asked) {
            self.check_cancellation(at, key, ends);
        }
        if let Some(request) = self.requests.get(key).filter(|_| subscribers_change) {
            let found = &mut self.found;
            check_subscribers(&self.owners, found, at, key, request);
        }
    }

    /// Checks that the request's user sent a cancel before the request is cancelled, or before its attempt is
    /// asked to stop. If the plan cancels on disconnect, no cancel by the user is required.
    fn check_cancellation(&mut self, at: Timestamp, key: &str, ends: bool) {
        let Some(request) = self.requests.get(key) else { return };
        if ends && request.state.status != Status::Cancelled {
            return;
        }
        let is_wanted = self.sent.get(key).is_some_and(|sent| sent.is_cancelled);
        if !is_wanted && !self.limits.cancel_on_disconnect {
            let message = "request is cancelled, but its user has not sent a cancel".to_owned();
            self.found.broken(rules::CANCEL_WAS_REQUESTED, at, Some(key), message);
        }
    }

    fn wrote_part(&mut self, key: &str, part: &str, image: Option<&Value>) {
        let Some(request) = self.requests.get_mut(key) else { return };
        let Some(image) = image else {
            request.parts.remove(part);
            return;
        };
        let is_result = part != part_item::PAYLOAD_PART && part != part_item::CHECKPOINT_PART;
        let value = text(image, "value").filter(|_| is_result).map(str::to_owned);
        request.parts.insert(part.to_owned(), Part { value });
    }

    fn deleted(&mut self, at: Timestamp, key: &str) {
        let Some(request) = self.requests.remove(key) else { return };
        if !request.has_expired(at) {
            let message = format!("request is deleted before it has expired, in state {:?}", request.state);
            self.found.broken(rules::ONLY_TERMINAL_EXPIRES, at, Some(key), message);
        }
    }
}

/// Checks that each subscriber is a connection of the request's user.
fn check_subscribers(
    owners: &HashMap<String, Owner>,
    found: &mut Found,
    at: Timestamp,
    key: &str,
    request: &RequestModel,
) {
    let stranger = subscribers(&request.image)
        .find(|connection| owners.get(*connection).is_some_and(|owner| *owner != request.owner));
    if let Some(connection) = stranger {
        let message = format!("subscriber {connection} belongs to {:?}", owners.get(connection));
        found.broken(rules::BELONGS_TO_ITS_USER, at, Some(key), message);
    }
}

/// Checks that an attempt ends in time after its cancel is requested. The attempt learns of the cancel at its
/// next lease renewal, and must end within seconds.
fn check_cancel_time(limits: &Limits, found: &mut Found, at: Timestamp, key: &str, asked_at: Timestamp) {
    let most = limits.lease / 3 + Duration::from_secs(10);
    if limits.is_faultless && at.since(asked_at) > most {
        let message = format!(
            "attempt ended {:?} after its cancel was requested; expected at most {most:?}",
            at.since(asked_at)
        );
        found.broken(rules::CANCEL_TAKES_EFFECT, at, Some(key), message);
    }
}
