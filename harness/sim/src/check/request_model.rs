//! What is known of one request.

use std::collections::BTreeMap;

use serde_json::Value;
use streamer::dead_letters::DeadLetter;
use streamer::ids::{TenantId, UserId};
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::image::{ItemState, number, subscribers, text};
use super::owner::Owner;

/// One request, from its queueing on.
#[derive(Debug)]
pub(super) struct RequestModel {
    pub(super) owner: Owner,
    pub(super) id: String,
    /// The key that it is stored under.
    pub(super) stored: String,
    pub(super) image: Value,
    pub(super) state: ItemState,
    /// By epoch.
    pub(super) claims: BTreeMap<u64, Claim>,
    /// Every status that it has had, by its place in [`Status::ALL`].
    statuses: u8,
    pub(super) ended_at: Option<Timestamp>,
    /// The terminal frame, as it was delivered first.
    pub(super) terminal_frame: Option<String>,
    /// What was pushed to each connection.
    pub(super) pushed: BTreeMap<String, PushedFrames>,
    /// The values that lie beside it.
    pub(super) parts: BTreeMap<String, Part>,
    /// When its holder was asked to stop.
    pub(super) cancel_requested_at: Option<Timestamp>,
    /// How often its handler has begun, by attempt and continuations.
    pub(super) runs: BTreeMap<(u32, u32), u32>,
    pub(super) cost: Cost,
}

/// One claim.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Which environment has made it.
    pub(super) by: Option<u64>,
    pub(super) at: Timestamp,
    pub(super) attempt: u32,
    pub(super) continuations: u32,
    /// Reports and renewals that were stored.
    pub(super) stored: u32,
    pub(super) checkpoints: u32,
}

/// A value that lies beside its request.
#[derive(Debug)]
pub(super) struct Part {
    /// What it is, if it is a result.
    pub(super) value: Option<String>,
}

/// What was written of a request beside its claims, their ends, and what is stored in between.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Writes that note who has heard of the end.
    pub(super) notes: u32,
    /// Somebody has come to listen.
    pub(super) subscriptions: u32,
    /// Terminal frames that have arrived.
    pub(super) deliveries: u32,
}

/// What was pushed to a connection about a request.
#[derive(Debug, Default)]
pub(super) struct PushedFrames {
    /// The last number from each environment and attempt: these are serial.
    pub(super) last: BTreeMap<(Option<u64>, u64), u64>,
    /// From which attempts a frame came too late.
    pub(super) late: BTreeMap<u64, u32>,
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

    /// Whether it has ever stood so.
    pub(super) fn has_been(&self, status: Status) -> bool {
        self.statuses & bit(status) != 0
    }

    /// Whether it had ended, and its time is over.
    pub(super) fn has_expired(&self, at: Timestamp) -> bool {
        number(&self.image, "ttl").is_some_and(|ttl| ttl <= at.as_secs())
    }

    /// The result that is stored.
    pub(super) fn result(&self) -> Option<Value> {
        let inside = text(&self.image, "result");
        let beside = text(&self.image, "result_part").and_then(|part| self.parts.get(part)?.value.as_deref());
        serde_json::from_str(inside.or(beside)?).ok()
    }

    /// The code of the error that is stored.
    pub(super) fn error_code(&self) -> Option<String> {
        let error: Value = serde_json::from_str(text(&self.image, "error")?).ok()?;
        error["code"].as_str().map(str::to_owned)
    }

    /// The id of the dead letter that it owes, if it has failed.
    pub(super) fn letter_id(&self) -> Option<String> {
        let key = &self.stored;
        let created_at = number(&self.image, "created_at").unwrap_or_default();
        (self.state.status == Status::Failed).then(|| format!("{key}#{}@{created_at}", self.state.epoch))
    }

    /// How a dead letter differs from its request, if it does.
    pub(super) fn mismatch_of(&self, letter: &DeadLetter) -> Option<String> {
        let Some(id) = self.letter_id() else {
            return Some(format!("the request is {}", self.state.status.as_str()));
        };
        if letter.id != id {
            return Some(format!("the request's letter is {id}"));
        }
        if self.error_code().as_deref() != Some(letter.error.code.as_str()) {
            return Some(format!("the request failed with {:?}", self.error_code()));
        }
        let payload = text(&self.image, "payload").and_then(|text| serde_json::from_str::<Value>(text).ok());
        if letter.left_out.is_empty() && payload.is_some_and(|payload| payload != letter.payload) {
            return Some("it has another payload than the request".to_owned());
        }
        None
    }
}

fn bit(status: Status) -> u8 {
    let place = Status::ALL.iter().position(|known| *known == status).unwrap_or_default();
    1 << place
}
