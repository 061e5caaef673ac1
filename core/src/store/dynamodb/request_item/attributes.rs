use super::key::KEY;
use crate::ids::ConnectionId;
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{Corrupt, Item, Reader};
use crate::store::{Lease, Runner, Status, Subscriber};

/// The attribute that says which function runs a request.
pub const RUNNER: &str = "runner";
/// Its value where that is the worker.
pub const WORKER: &str = "worker";

/// The request's status, and its lease, whatever else can be read of its item.
///
/// # Errors
/// When one of these attributes is missing, of the wrong type, or has no meaning.
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

/// The request's subscribers, from an item or from the attributes that an update returned.
///
/// # Errors
/// When the attribute is no map.
pub fn subscribers(item: &Item) -> Result<Vec<ConnectionId>, Corrupt> {
    let map = Reader::new(item, KEY).map("subscribers")?.unwrap_or_default();
    Ok(map.into_keys().map(|id| ConnectionId::new(id.clone())).collect())
}

/// The request's subscribers with the frame that each has, from an item or from the attributes that an update returned.
///
/// # Errors
/// When the attribute is no map of numbers.
pub fn subscribers_with_seen(item: &Item) -> Result<Vec<Subscriber>, Corrupt> {
    let read = Reader::new(item, KEY);
    let map = read.map("subscribers")?.unwrap_or_default();
    map.into_iter()
        .map(|(id, seen)| {
            let number = seen.as_n().ok().and_then(|digits| digits.parse().ok());
            let seen = number.ok_or_else(|| {
                read.corrupt(
                    "subscribers",
                    format!("expected the number of a frame for {id}, found {seen:?}"),
                )
            })?;
            Ok(Subscriber { connection: ConnectionId::new(id.clone()), seen: Seq::from_stored(seen) })
        })
        .collect()
}

/// Which function runs the request, from an item, or from the attributes that an update returned.
///
/// # Errors
/// When the attribute has no meaning.
pub fn runner(item: &Item) -> Result<Runner, Corrupt> {
    let read = Reader::new(item, KEY);
    match read.optional_string(RUNNER)? {
        None => Ok(Runner::Processor),
        Some(WORKER) => Ok(Runner::Worker),
        Some(other) => Err(read.corrupt(RUNNER, format!("expected {WORKER:?} or nothing, found {other:?}"))),
    }
}

/// Whether the request may be attempted once more, from an item.
///
/// # Errors
/// When one of these attributes is missing or no number.
pub fn has_attempts_left(item: &Item) -> Result<bool, Corrupt> {
    let read = Reader::new(item, KEY);
    let (used, allowed): (u32, u32) = (read.number("attempt")?, read.number("max_attempts")?);
    Ok(used < allowed)
}

/// Whether the request has failed for good and its dead letter is still to be sent.
///
/// # Errors
/// When the attribute is no flag.
pub fn is_dead_letter_due(item: &Item) -> Result<bool, Corrupt> {
    Reader::new(item, KEY).flag("dead_letter")
}

/// Whether the request's end is asked for, from an item or from the attributes that an update returned.
///
/// # Errors
/// When the attribute is no flag.
pub fn cancel_requested(item: &Item) -> Result<bool, Corrupt> {
    Reader::new(item, KEY).flag("cancel_requested")
}

/// The number of the last frame, from an item or from the attributes that an update returned.
///
/// # Errors
/// When the attribute is missing or no number.
pub fn seq(item: &Item) -> Result<Seq, Corrupt> {
    Ok(Seq::from_stored(Reader::new(item, KEY).number("seq")?))
}

/// How often the request was claimed.
///
/// # Errors
/// When the attribute is missing or no number.
pub fn epoch(item: &Item) -> Result<u64, Corrupt> {
    Reader::new(item, KEY).number("epoch")
}

/// When the request ended, if it has.
///
/// # Errors
/// When the attribute is no number.
pub fn finished_at(item: &Item) -> Result<Option<Timestamp>, Corrupt> {
    Reader::new(item, KEY).optional_time("finished_at")
}

/// The second in which the request's time is over; `None` as long as it is open.
///
/// # Errors
/// When the attribute is no number.
pub fn ttl(item: &Item) -> Result<Option<u64>, Corrupt> {
    Reader::new(item, KEY).optional_number("ttl")
}

/// When somebody has to look at the request, unless nothing is left to do.
///
/// # Errors
/// When the attribute is no number.
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
