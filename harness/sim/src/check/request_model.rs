//! The checker's model of one request.

use std::collections::BTreeMap;

use serde_json::Value;
use streamer::dead_letters::DeadLetter;
use streamer::ids::{TenantId, UserId};
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::image::{ItemState, number, subscribers, text};
use super::owner::Owner;

/// The checker's model of one request, from its first write until it expires.
#[derive(Debug)]
pub(super) struct RequestModel {
    pub(super) owner: Owner,
    pub(super) id: String,
    /// Key of the request in the requests table.
    pub(super) stored: String,
    pub(super) image: Value,
    pub(super) state: ItemState,
    /// Claims of the request, by epoch.
    pub(super) claims: BTreeMap<u64, Claim>,
    /// Every status that the request has had, one bit for each, by its position in [`Status::ALL`].
    statuses: u8,
    /// Time of the terminal write; `None` while the request is open.
    pub(super) ended_at: Option<Timestamp>,
    /// Text of the first terminal frame that was pushed.
    pub(super) terminal_frame: Option<String>,
    /// Frames about the request that were pushed, by connection id.
    pub(super) pushed: BTreeMap<String, PushedFrames>,
    /// Part items of the request (separate items for large values), by part name.
    pub(super) parts: BTreeMap<String, Part>,
    /// Time at which a cancel of the running attempt was requested; `None` if no cancel was requested.
    pub(super) cancel_requested_at: Option<Timestamp>,
    /// Number of times that the handler has started, by attempt and continuation count.
    pub(super) runs: BTreeMap<(u32, u32), u32>,
    /// Counts of writes and frames, which are compared with the request's cost budget.
    pub(super) cost: Cost,
}

/// A claim of a request by an environment.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Identifying number of the environment that made the claim; `None` if the caller is unknown.
    pub(super) by: Option<u64>,
    pub(super) at: Timestamp,
    pub(super) attempt: u32,
    pub(super) continuations: u32,
    /// Number of progress reports and lease renewals that were written under the claim.
    pub(super) stored: u32,
    /// Number of checkpoints that were written under the claim.
    pub(super) checkpoints: u32,
}

/// A part item: a separate item that holds a large value of a request.
#[derive(Debug)]
pub(super) struct Part {
    /// Text of the request's result if the part item holds the result; otherwise `None`.
    pub(super) value: Option<String>,
}

/// Counts of a request's subscriptions, of its delivered terminal frames, and of the writes that record
/// deliveries.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Number of writes after the terminal write, most of which record a delivery.
    pub(super) notes: u32,
    /// Number of subscriptions, including the sender's own.
    pub(super) subscriptions: u32,
    /// Number of terminal frames that were delivered.
    pub(super) deliveries: u32,
}

/// Frames about one request that were pushed to one connection.
#[derive(Debug, Default)]
pub(super) struct PushedFrames {
    /// Highest sequence number pushed, by environment and epoch. Only frames of one environment and one epoch
    /// are sent in order.
    pub(super) last: BTreeMap<(Option<u64>, u64), u64>,
    /// Number of late progress frames, by epoch.
    pub(super) late: BTreeMap<u64, u32>,
    /// Whether the terminal frame was delivered to the connection.
    pub(super) has_terminal_frame: bool,
}

impl RequestModel {
    pub(super) fn new(stored: &str, image: &Value, state: ItemState) -> Self {
        let name = |attribute| text(image, attribute).unwrap_or_default().to_owned();
        let owner = Owner { user: UserId::new(name("user_id")), tenant: TenantId::new(name("tenant_id")) };
        Self {
            owner,
            id: name("client_id"),
            stored: stored.to_owned(),
            image: image.clone(),
            state,
            claims: BTreeMap::new(),
            statuses: 0,
            ended_at: None,
            terminal_frame: None,
            pushed: BTreeMap::new(),
            parts: BTreeMap::new(),
            cancel_requested_at: None,
            runs: BTreeMap::new(),
            cost: Cost {
                subscriptions: u32::try_from(subscribers(image).count()).unwrap_or(u32::MAX),
                ..Cost::default()
            },
        }
    }

    pub(super) fn note_status(&mut self) {
        self.statuses |= bit(self.state.status);
    }

    /// Returns whether the request has ever had this status.
    pub(super) fn has_been(&self, status: Status) -> bool {
        self.statuses & bit(status) != 0
    }

    /// Returns true if the request has expired at the time `at`. An open request never expires, because it
    /// has no time to live.
    pub(super) fn has_expired(&self, at: Timestamp) -> bool {
        number(&self.image, "ttl").is_some_and(|ttl| ttl <= at.as_secs())
    }

    /// Returns the stored result of the request.
    pub(super) fn result(&self) -> Option<Value> {
        let inside = text(&self.image, "result");
        let beside = text(&self.image, "result_part").and_then(|part| self.parts.get(part)?.value.as_deref());
        serde_json::from_str(inside.or(beside)?).ok()
    }

    /// Returns the code of the stored error.
    pub(super) fn error_code(&self) -> Option<String> {
        let error: Value = serde_json::from_str(text(&self.image, "error")?).ok()?;
        error["code"].as_str().map(str::to_owned)
    }

    /// Returns the id of the request's dead letter; `None` unless the request is FAILED.
    pub(super) fn letter_id(&self) -> Option<String> {
        let key = &self.stored;
        let created_at = number(&self.image, "created_at").unwrap_or_default();
        (self.state.status == Status::Failed).then(|| format!("{key}#{}@{created_at}", self.state.epoch))
    }

    /// Returns a description of the difference between a dead letter and the request; `None` if they match.
    pub(super) fn mismatch_of(&self, letter: &DeadLetter) -> Option<String> {
        let Some(id) = self.letter_id() else {
            return Some(format!("the request's status is {}", self.state.status.as_str()));
        };
        if letter.id != id {
            return Some(format!("the request's dead letter has the id {id}"));
        }
        if self.error_code().as_deref() != Some(letter.error.code.as_str()) {
            return Some(format!("the request failed with {:?}", self.error_code()));
        }
        let payload = text(&self.image, "payload").and_then(|text| serde_json::from_str::<Value>(text).ok());
        if letter.left_out.is_empty() && payload.is_some_and(|payload| payload != letter.payload) {
            return Some("the dead letter's payload differs from the request's payload".to_owned());
        }
        None
    }
}

fn bit(status: Status) -> u8 {
    let place = Status::ALL.iter().position(|known| *known == status).unwrap_or_default();
    1 << place
}
