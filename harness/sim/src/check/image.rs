//! Reads attributes from images of a request's item. An image is the item as it is after a write, in DynamoDB
//! JSON. The checks do not convert whole images, because each write of each world has an image.

use serde_json::Value;
use streamer::lifecycle::{Budget, Hold, State};
use streamer::ports::Timestamp;
use streamer::store::Status;

/// Returns the value of an image's string attribute; `None` if the attribute is missing or not a string.
pub(super) fn text<'a>(image: &'a Value, attribute: &str) -> Option<&'a str> {
    image.get(attribute)?.get("S")?.as_str()
}

/// Returns the value of an image's number attribute; `None` if the attribute is missing or not a whole
/// number.
pub(super) fn number(image: &Value, attribute: &str) -> Option<u64> {
    image.get(attribute)?.get("N")?.as_str()?.parse().ok()
}

/// Returns an image's number attribute, which holds milliseconds since 1970, as a time.
pub(super) fn time(image: &Value, attribute: &str) -> Option<Timestamp> {
    number(image, attribute).map(Timestamp::from_millis)
}

/// Returns true if the image has the attribute.
pub(super) fn has(image: &Value, attribute: &str) -> bool {
    image.get(attribute).is_some()
}

/// Returns the connection ids of the request's subscribers, from an image of the request's item.
pub(super) fn subscribers(image: &Value) -> impl Iterator<Item = &str> {
    let map = image.get("subscribers").and_then(|map| map.get("M")).and_then(Value::as_object);
    map.into_iter().flat_map(|map| map.keys().map(String::as_str))
}

/// Returns the names of the attributes that differ between two images, in no particular order.
pub(super) fn changed<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Vec::new() };
    let differ = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    differ.map(|(name, _)| name.as_str()).chain(gone.map(String::as_str)).collect()
}

/// The attributes of a request's item that most checks need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ItemState {
    pub(super) status: Status,
    pub(super) attempt: u32,
    pub(super) max_attempts: u32,
    pub(super) continuations: u32,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) lease_end: Option<Timestamp>,
    pub(super) timer_at: Option<Timestamp>,
    pub(super) cancel_requested: bool,
}

impl ItemState {
    /// Reads a request's state from an image of its item. Returns `None` if the image is not that of a
    /// request's item.
    pub(super) fn of(image: &Value) -> Option<Self> {
        let count = |attribute| number(image, attribute).and_then(|number| u32::try_from(number).ok());
        let status = text(image, "status")?;
        let cancel = image.get("cancel_requested").and_then(|flag| flag.get("BOOL")?.as_bool());
        Some(Self {
            status: Status::ALL.into_iter().find(|known| known.as_str() == status)?,
            attempt: count("attempt")?,
            max_attempts: count("max_attempts")?,
            continuations: if has(image, "continuations") { count("continuations")? } else { 0 },
            epoch: number(image, "epoch")?,
            seq: number(image, "seq")?,
            lease_end: time(image, "lease_expires_at"),
            timer_at: time(image, "timer_at"),
            cancel_requested: cancel.unwrap_or_default(),
        })
    }

    /// Converts this state to the state type of the state machine in `core`.
    pub(super) fn lifecycle_state(&self) -> State {
        let budget =
            Budget { used: self.attempt, allowed: self.max_attempts, continuations: self.continuations };
        let hold =
            Hold { until: self.lease_end.unwrap_or_default(), cancel_requested: self.cancel_requested };
        match self.status {
            Status::Pending => State::Pending(budget),
            Status::Processing => State::Processing(budget, hold),
            Status::Retrying => State::Retrying(budget, self.timer_at.unwrap_or_default()),
            Status::Completed => State::Completed,
            Status::Failed => State::Failed,
            Status::Cancelled => State::Cancelled,
        }
    }

    /// Returns true if this state equals `state`, a state of the state machine, without comparing the lease's
    /// end and the timer.
    pub(super) fn matches(&self, state: &State) -> bool {
        let budget =
            Budget { used: self.attempt, allowed: self.max_attempts, continuations: self.continuations };
        self.status == state.status()
            && match state {
                State::Pending(other) | State::Processing(other, _) | State::Retrying(other, _) => {
                    *other == budget
                }
                State::Completed | State::Failed | State::Cancelled => true,
            }
    }
}

/// Returns the epoch that a sequence number belongs to.
pub(super) const fn epoch_of(seq: u64) -> u64 {
    seq >> 20
}

/// Returns the position of a sequence number within its epoch.
pub(super) const fn place_of(seq: u64) -> u64 {
    seq & 0xF_FFFF
}
