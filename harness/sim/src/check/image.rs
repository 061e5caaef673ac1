//! A request's item, as a write left it: read in place, since every write of every world is looked at.

use serde_json::Value;
use streamer::lifecycle::{Budget, Hold, State};
use streamer::ports::Timestamp;
use streamer::store::Status;

/// A string attribute.
pub(super) fn text<'a>(image: &'a Value, attribute: &str) -> Option<&'a str> {
    image.get(attribute)?.get("S")?.as_str()
}

/// A number attribute.
pub(super) fn number(image: &Value, attribute: &str) -> Option<u64> {
    image.get(attribute)?.get("N")?.as_str()?.parse().ok()
}

/// A number attribute that is a moment.
pub(super) fn time(image: &Value, attribute: &str) -> Option<Timestamp> {
    number(image, attribute).map(Timestamp::from_millis)
}

/// Whether there is such an attribute.
pub(super) fn has(image: &Value, attribute: &str) -> bool {
    image.get(attribute).is_some()
}

/// Who listens.
pub(super) fn subscribers(image: &Value) -> impl Iterator<Item = &str> {
    let map = image.get("subscribers").and_then(|map| map.get("M")).and_then(Value::as_object);
    map.into_iter().flat_map(|map| map.keys().map(String::as_str))
}

/// The attributes that differ, in no order that matters.
pub(super) fn changed<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Vec::new() };
    let differ = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    differ.map(|(name, _)| name.as_str()).chain(gone.map(String::as_str)).collect()
}

/// Where a request stands.
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
    /// Reads it from an image; `None` where that is no request's.
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

    /// The same in the words of the state machine.
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

    /// Whether this is where the state machine has led, whatever the lease's end and the timer are.
    pub(super) fn is(&self, state: &State) -> bool {
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

/// Which attempt a frame's number belongs to.
pub(super) const fn epoch_of(seq: u64) -> u64 {
    seq >> 20
}

/// Which of its attempt's frames it numbers.
pub(super) const fn place_of(seq: u64) -> u64 {
    seq & 0xF_FFFF
}
