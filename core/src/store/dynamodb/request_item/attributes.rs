use super::key::KEY;
use crate::ids::ConnectionId;
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{Corrupt, Item, Reader};
use crate::store::{Lease, Runner, Status, Subscriber};

/// Name of the attribute that tells whether the processor or the worker runs a request.
pub const RUNNER: &str = "runner";
/// Value of [`RUNNER`] if the worker runs the request; the attribute is absent otherwise.
pub const WORKER: &str = "worker";

/// Decodes a request's status and lease. Other attributes of the item may be invalid.
///
/// # Errors
/// [`Corrupt`] if the status or epoch is missing, or if an attribute has the wrong type or an unknown value.
pub fn status_and_lease(item: &Item) -> Result<(Status, Option<Lease>), Corrupt> {
    let read = Reader::new(item, KEY);
    let status = status(&read)?;
    let epoch = read.number("epoch")?;
    let lease = match (read.optional_string("owner")?, read.optional_time("lease_expires_at")?) {
        (Some(owner), Some(expires_at)) => Some(Lease { epoch, owner: owner.to_owned(), expires_at }),
        _ => None,
    };
    Ok((status, lease))
}

/// Decodes a request's subscribers from an item, or from the attributes that an update returned.
///
/// # Errors
/// [`Corrupt`] if `subscribers` is not a map.
pub fn subscribers(item: &Item) -> Result<Vec<ConnectionId>, Corrupt> {
    let map = Reader::new(item, KEY).map("subscribers")?.unwrap_or_default();
    Ok(map.into_keys().map(|id| ConnectionId::new(id.clone())).collect())
}

/// Decodes a request's subscribers from an item, or from the attributes that an update returned. Each subscriber has
/// the sequence number of the last frame that its connection has received for certain.
///
/// # Errors
/// [`Corrupt`] if `subscribers` is not a map of numbers.
pub fn subscribers_with_seen(item: &Item) -> Result<Vec<Subscriber>, Corrupt> {
    let read = Reader::new(item, KEY);
    let map = read.map("subscribers")?.unwrap_or_default();
    map.into_iter()
        .map(|(id, seen)| {
            let number = seen.as_n().ok().and_then(|digits| digits.parse().ok());
            let seen = number.ok_or_else(|| {
                read.corrupt(
                    "subscribers",
                    format!("expected a sequence number for connection {id}, found {seen:?}"),
                )
            })?;
            Ok(Subscriber { connection: ConnectionId::new(id.clone()), seen: Seq::from_stored(seen) })
        })
        .collect()
}

/// Decodes the function that runs a request, from an item or from the attributes that an update returned.
///
/// # Errors
/// [`Corrupt`] if `runner` has an unknown value.
pub fn runner(item: &Item) -> Result<Runner, Corrupt> {
    let read = Reader::new(item, KEY);
    match read.optional_string(RUNNER)? {
        None => Ok(Runner::Processor),
        Some(WORKER) => Ok(Runner::Worker),
        Some(other) => {
            Err(read.corrupt(RUNNER, format!("expected {WORKER:?} or no attribute, found {other:?}")))
        }
    }
}

/// Returns whether the request of this item has attempts left.
///
/// # Errors
/// [`Corrupt`] if `attempt` or `max_attempts` is missing or not a number.
pub fn has_attempts_left(item: &Item) -> Result<bool, Corrupt> {
    let read = Reader::new(item, KEY);
    let (used, allowed): (u32, u32) = (read.number("attempt")?, read.number("max_attempts")?);
    Ok(used < allowed)
}

/// Returns whether the request of this item has failed and its dead letter still has to be sent.
///
/// # Errors
/// [`Corrupt`] if `dead_letter` is not a boolean.
pub fn is_dead_letter_due(item: &Item) -> Result<bool, Corrupt> {
    Reader::new(item, KEY).flag("dead_letter")
}

/// Returns whether a cancel of the request was requested, from an item or from the attributes that an update returned.
///
/// # Errors
/// [`Corrupt`] if `cancel_requested` is not a boolean.
pub fn cancel_requested(item: &Item) -> Result<bool, Corrupt> {
    Reader::new(item, KEY).flag("cancel_requested")
}

/// Decodes the sequence number of a request's last stored frame, from an item or from the attributes that an update
/// returned.
///
/// # Errors
/// [`Corrupt`] if `seq` is missing or not a number.
pub fn seq(item: &Item) -> Result<Seq, Corrupt> {
    Ok(Seq::from_stored(Reader::new(item, KEY).number("seq")?))
}

/// Decodes a request's epoch, which each claim raises by one.
///
/// # Errors
/// [`Corrupt`] if `epoch` is missing or not a number.
pub fn epoch(item: &Item) -> Result<u64, Corrupt> {
    Reader::new(item, KEY).number("epoch")
}

/// Decodes the time of a request's terminal write; `None` while the request is open.
///
/// # Errors
/// [`Corrupt`] if `finished_at` is not a number.
pub fn finished_at(item: &Item) -> Result<Option<Timestamp>, Corrupt> {
    Reader::new(item, KEY).optional_time("finished_at")
}

/// Decodes a request's time to live, in seconds since the Unix epoch; `None` while the request is open.
///
/// # Errors
/// [`Corrupt`] if `ttl` is not a number.
pub fn ttl(item: &Item) -> Result<Option<u64>, Corrupt> {
    Reader::new(item, KEY).optional_number("ttl")
}

/// Decodes the time at which the sweeper must handle a request; `None` if no work is left for the sweeper.
///
/// # Errors
/// [`Corrupt`] if `timer_at` is not a number.
pub fn timer_at(item: &Item) -> Result<Option<Timestamp>, Corrupt> {
    Reader::new(item, KEY).optional_time("timer_at")
}

fn status(read: &Reader<'_>) -> Result<Status, Corrupt> {
    let text = read.string("status")?;
    Status::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        read.corrupt(
            "status",
            format!("expected one of {:?}, found {text:?}", Status::ALL.map(Status::as_str)),
        )
    })
}
