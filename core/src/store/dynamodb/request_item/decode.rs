use super::attributes::{
    RUNNER, cancel_requested, finished_at, is_dead_letter_due, runner, seq, status_and_lease, subscribers,
    timer_at,
};
use super::key::KEY;
use crate::ids::{ConnectionId, RequestId, TenantId, UserId};
use crate::store::dynamodb::codec::{Corrupt, Item, Reader};
use crate::store::dynamodb::part_item;
use crate::store::{Ending, Progress, Request, RequestSummary, Status};

/// Decodes a request from its own item and the [part items](super::parts()) that the item names. Unknown attributes are
/// ignored.
///
/// # Errors
/// [`Corrupt`] if an attribute or part item is missing, has the wrong type, or has an unknown value.
pub fn decode(item: &Item, parts: &[Item]) -> Result<Request, Corrupt> {
    let read = Reader::new(item, KEY);
    let optional_value = |attribute, part_attribute| {
        // If the item has the value both inline and as a part item, the inline value is newer. `parts` explains the
        // reason.
        if let Some(value) = read.optional_json(attribute)? {
            return Ok(Some(value));
        }
        let Some(name) = read.optional_string(part_attribute)? else { return Ok(None) };
        let is_match = |part: &&Item| part_item::part(part) == Ok(name);
        let part = parts.iter().find(is_match).ok_or_else(|| {
            read.corrupt(part_attribute, format!("names the part item {name:?}, which does not exist"))
        })?;
        part_item::decode(part).map(Some)
    };
    let value = |attribute, part_attribute| {
        optional_value(attribute, part_attribute)?.ok_or_else(|| read.corrupt(attribute, "is missing"))
    };
    let RequestSummary {
        id,
        user,
        tenant,
        connection,
        action,
        status,
        attempt,
        max_attempts,
        continuations,
        runner,
        epoch,
        lease,
        cancel_requested,
        history,
        is_dead_letter_due,
        progress,
        seq,
        subscribers,
        created_at,
        started_at,
        finished_at,
        timer_at: _,
    } = decode_summary(item)?;
    let ending = match status {
        Status::Pending | Status::Processing | Status::Retrying => None,
        Status::Completed => Some(Ending::Completed(value("result", "result_part")?)),
        Status::Failed => Some(Ending::Failed(read.json("error")?)),
        Status::Cancelled => Some(Ending::Cancelled),
    };
    Ok(Request {
        id,
        user,
        tenant,
        connection,
        action,
        payload: value("payload", "payload_part")?,
        metadata: read.json("metadata")?,
        status,
        attempt,
        max_attempts,
        continuations,
        runner,
        epoch,
        lease,
        cancel_requested,
        progress,
        seq,
        checkpoint: optional_value("checkpoint", "checkpoint_part")?,
        history,
        ending,
        is_dead_letter_due,
        redrive_of: read.optional_string("redrive_of")?.map(str::to_owned),
        redriven_as: read.optional_string("redriven_as")?.map(RequestId::from),
        subscribers,
        created_at,
        started_at,
        finished_at,
    })
}

/// Names of the attributes that [`decode_summary`] needs.
pub const SUMMARY_ATTRIBUTES: [&str; 26] = [
    KEY,
    "client_id",
    "user_id",
    "tenant_id",
    "connection_id",
    "action",
    "status",
    "attempt",
    "max_attempts",
    "continuations",
    RUNNER,
    "epoch",
    "owner",
    "lease_expires_at",
    "cancel_requested",
    "history",
    "dead_letter",
    "percentage",
    "progress_message",
    "progress_metadata",
    "seq",
    "subscribers",
    "created_at",
    "started_at",
    "finished_at",
    "timer_at",
];

/// Decodes a request's summary. Payload, result and part items are not needed.
///
/// # Errors
/// [`Corrupt`] if an attribute is missing, has the wrong type, or has an unknown value.
pub fn decode_summary(item: &Item) -> Result<RequestSummary, Corrupt> {
    let read = Reader::new(item, KEY);
    let (status, lease) = status_and_lease(item)?;
    Ok(RequestSummary {
        id: RequestId::from(read.string("client_id")?),
        user: UserId::from(read.string("user_id")?),
        tenant: TenantId::from(read.string("tenant_id")?),
        connection: ConnectionId::from(read.string("connection_id")?),
        action: read.string("action")?.to_owned(),
        status,
        attempt: read.number("attempt")?,
        max_attempts: read.number("max_attempts")?,
        continuations: read.optional_number("continuations")?.unwrap_or_default(),
        runner: runner(item)?,
        epoch: read.number("epoch")?,
        lease,
        cancel_requested: cancel_requested(item)?,
        history: read.optional_json("history")?.unwrap_or_default(),
        is_dead_letter_due: is_dead_letter_due(item)?,
        progress: Progress {
            percentage: read.number("percentage")?,
            message: read.string("progress_message")?.to_owned(),
            metadata: read.json("progress_metadata")?,
        },
        seq: seq(item)?,
        subscribers: subscribers(item)?,
        created_at: read.time("created_at")?,
        started_at: read.optional_time("started_at")?,
        finished_at: finished_at(item)?,
        timer_at: timer_at(item)?,
    })
}
