//! The item of a queued request, attribute by attribute.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `request_id` | S | table key: tenant, user and client id in one ([`RequestKey`]) |
//! | `part` | S | table sort key: `request`; big values lie beside it, see [`part_item`] |
//! | `client_id`, `user_id`, `tenant_id`, `action` | S | |
//! | `connection_id` | S | key of `connection-requests`, sorted by `created_at` |
//! | `payload` | S, JSON | unless it is big |
//! | `payload_part` | S | instead of it: the part that holds it |
//! | `metadata` | S, JSON | |
//! | `status` | S | [`Status`] |
//! | `status_shard` | S | `{status}#{shard}`; key of `status-time`, sorted by `created_at` |
//! | `attempt`, `max_attempts`, `continuations`, `epoch`, `seq` | N | |
//! | `runner` | S | `worker`, where only the worker may run it |
//! | `nudges` | N | how often it was made to appear in the stream once more, since nobody had claimed it |
//! | `owner` | S | who holds the lease, or has given it back or ended the request: by it a lost answer is told from a lost lease. Gone once the request is taken back, or ended by somebody else |
//! | `lease_expires_at` | N, ms | only while PROCESSING |
//! | `cancel_requested` | BOOL | only while PROCESSING: whether whoever holds the lease is asked to stop |
//! | `percentage` | N | |
//! | `progress_message` | S | |
//! | `progress_metadata` | S, JSON | |
//! | `result` | S, JSON | only when COMPLETED, and unless it is big |
//! | `result_part` | S | instead of it: the part that holds it |
//! | `error` | S, JSON | only when FAILED |
//! | `checkpoint` | S, JSON | what the handler saved last, unless it is big |
//! | `checkpoint_part` | S | the part that holds it; beside a `checkpoint`, the part that held an earlier one |
//! | `history` | S, JSON | the attempts that did not end it well, the latest last, bounded |
//! | `dead_letter` | BOOL | only when FAILED: whether its dead letter is still to be sent |
//! | `redrive_of` | S | the dead letter that it was made from |
//! | `redriven_as` | S | the client id of the request that was made from its dead letter |
//! | `subscribers` | M of N | connection ids, each with the number of the last frame that it knew when it came to listen |
//! | `created_at`, `started_at`, `finished_at` | N, ms | |
//! | `timer_shard` | S | key of `timers`; gone when nothing is left to do |
//! | `timer_at` | N, ms | when the sweeper must look at the request |
//! | `ttl` | N, s | DynamoDB's time to live; only once ended, so that nothing open can expire |

use aws_sdk_dynamodb::types::AttributeValue;

use serde_json::Value;

use super::codec::{Corrupt, Item, Reader, json, n, s, time};
use super::part_item;
use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::{
    Ending, Lease, PastAttempt, Progress, Request, RequestSummary, Runner, Status, Subscriber,
};

/// The table's key attribute.
pub const KEY: &str = "request_id";
/// The table's sort key attribute.
pub const PART: &str = "part";
/// The part that is the request itself.
pub const REQUEST_PART: &str = "request";

/// The attribute that says which function runs a request.
pub const RUNNER: &str = "runner";
/// Its value where that is the worker.
pub const WORKER: &str = "worker";

/// The key of a request's own item.
#[must_use]
pub fn key(key: &RequestKey) -> Item {
    Item::from([(KEY.into(), s(key.as_str())), (PART.into(), s(REQUEST_PART))])
}

/// The value of `status_shard`.
#[must_use]
pub fn status_shard(status: Status, key: &RequestKey, shards: u8) -> String {
    shard_of_status(status, key.shard(shards))
}

/// The value of `status_shard` of what stands so, and belongs to this shard.
#[must_use]
pub fn shard_of_status(status: Status, shard: u8) -> String {
    format!("{}#{shard}", status.as_str())
}

/// The value of `timer_shard`.
#[must_use]
pub fn timer_shard(key: &RequestKey, shards: u8) -> String {
    key.shard(shards).to_string()
}

/// A request as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its own item.
    pub item: Item,
    /// The parts that hold what of it is big.
    pub parts: Vec<Item>,
}

/// The items of a request, with the time at which the sweeper must look at it; without any time to live.
#[must_use]
pub fn encode(request: &Request, timer_at: Option<Timestamp>, shards: u8) -> Encoded {
    let key_text = request.key();
    let mut item = key(&key_text);
    let mut parts = Vec::new();
    let mut value = |attribute: &str, part: String, value: &Value| match text_or_part(value) {
        Ok(text) => (attribute.to_owned(), s(text)),
        Err(text) => {
            parts.push(part_item::encode(&key_text, &part, text, None));
            (format!("{attribute}_part"), s(part))
        }
    };
    item.extend([value("payload", part_item::PAYLOAD_PART.to_owned(), &request.payload)]);
    if let Some(checkpoint) = &request.checkpoint {
        item.extend([value("checkpoint", part_item::CHECKPOINT_PART.to_owned(), checkpoint)]);
    }
    if let Some(Ending::Completed(result)) = &request.ending {
        item.extend([value("result", part_item::result_part(request.epoch), result)]);
    }
    let mut put = |attribute: &str, value: AttributeValue| item.insert(attribute.to_owned(), value);
    put("client_id", s(request.id.as_str()));
    put("user_id", s(request.user.as_str()));
    put("tenant_id", s(request.tenant.as_str()));
    put("connection_id", s(request.connection.as_str()));
    put("action", s(&request.action));
    put("metadata", json(&serde_json::json!(request.metadata)));
    put("status", s(request.status.as_str()));
    put("status_shard", s(status_shard(request.status, &key_text, shards)));
    put("attempt", n(request.attempt));
    put("max_attempts", n(request.max_attempts));
    if request.continuations > 0 {
        put("continuations", n(request.continuations));
    }
    match request.runner {
        Runner::Processor => {}
        Runner::Worker => {
            put(RUNNER, s(WORKER));
        }
    }
    put("epoch", n(request.epoch));
    put("seq", n(request.seq));
    if let Some(lease) = &request.lease {
        put("owner", s(&lease.owner));
        put("lease_expires_at", time(lease.expires_at));
    }
    if request.cancel_requested {
        put("cancel_requested", AttributeValue::Bool(true));
    }
    if !request.history.is_empty() {
        put("history", history_value(&request.history));
    }
    put("percentage", n(request.progress.percentage));
    put("progress_message", s(&request.progress.message));
    put("progress_metadata", json(&request.progress.metadata.clone().into()));
    if let Some(Ending::Failed(error)) = &request.ending {
        put("error", error_value(error));
    }
    if request.is_dead_letter_due {
        put("dead_letter", AttributeValue::Bool(true));
    }
    if let Some(letter) = &request.redrive_of {
        put("redrive_of", s(letter));
    }
    if let Some(id) = &request.redriven_as {
        put("redriven_as", s(id.as_str()));
    }
    let subscribed = |id: &ConnectionId| (id.to_string(), n(0));
    put("subscribers", AttributeValue::M(request.subscribers.iter().map(subscribed).collect()));
    put("created_at", time(request.created_at));
    if let Some(at) = request.started_at {
        put("started_at", time(at));
    }
    if let Some(at) = request.finished_at {
        put("finished_at", time(at));
    }
    if let Some(at) = timer_at {
        put("timer_shard", s(timer_shard(&key_text, shards)));
        put("timer_at", time(at));
    }
    Encoded { item, parts }
}

/// The JSON text of a value; as an error, if it has to lie in a part of its own.
pub(super) fn text_or_part(value: &Value) -> Result<String, String> {
    let text = value.to_string();
    if text.len() <= part_item::MAX_INLINE_BYTES { Ok(text) } else { Err(text) }
}

/// The value of `error`.
///
/// # Panics
/// Never: an error body is made of strings and JSON values.
#[must_use]
pub fn error_value(error: &crate::protocol::ErrorBody) -> AttributeValue {
    s(serde_json::to_string(error).expect("an error body is made of what JSON can say"))
}

/// The value of `history`.
///
/// # Panics
/// Never: a past attempt is made of strings and numbers.
#[must_use]
pub fn history_value(history: &[PastAttempt]) -> AttributeValue {
    s(serde_json::to_string(history).expect("a history is made of what JSON can say"))
}

/// The attributes that name the parts that live as long as the request is open, and expire once it has ended.
pub(super) const OPEN_PARTS: [&str; 2] = ["payload_part", "checkpoint_part"];

/// The names of the parts that an item needs to be read.
///
/// # Errors
/// When one of these attributes is no string.
pub fn parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    // A checkpoint that has become small leaves its part behind, to expire with the request.
    let is_checkpoint_inside = read.optional_string("checkpoint")?.is_some();
    let mut parts = Vec::new();
    for attribute in ["payload_part", "checkpoint_part", "result_part"] {
        let is_left_behind = attribute == "checkpoint_part" && is_checkpoint_inside;
        parts.extend(read.optional_string(attribute)?.filter(|_| !is_left_behind));
    }
    Ok(parts)
}

/// The names of the parts that are to expire once the request has ended, if it has any.
///
/// # Errors
/// When one of these attributes is no string.
pub fn open_parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    let parts = OPEN_PARTS.into_iter().filter_map(|attribute| read.optional_string(attribute).transpose());
    parts.collect()
}

/// The request that an item and the [`parts`] that it names hold; attributes that are not known are passed over.
///
/// # Errors
/// When an attribute or a part is missing, of the wrong type, or has no meaning.
pub fn decode(item: &Item, parts: &[Item]) -> Result<Request, Corrupt> {
    let read = Reader::new(item, KEY);
    let optional_value = |attribute, part_attribute| {
        // What lies inside is the latest: see `parts`.
        if let Some(value) = read.optional_json(attribute)? {
            return Ok(Some(value));
        }
        let Some(name) = read.optional_string(part_attribute)? else { return Ok(None) };
        let is_it = |part: &&Item| part_item::part(part) == Ok(name);
        let part = parts.iter().find(is_it).ok_or_else(|| {
            read.corrupt(part_attribute, format!("names the part {name:?}, which is not there"))
        })?;
        part_item::decode(part).map(Some)
    };
    let value = |attribute, part_attribute| {
        optional_value(attribute, part_attribute)?.ok_or_else(|| read.corrupt(attribute, "is missing"))
    };
    let summary = decode_summary(item)?;
    let ending = match summary.status {
        Status::Pending | Status::Processing | Status::Retrying => None,
        Status::Completed => Some(Ending::Completed(value("result", "result_part")?)),
        Status::Failed => Some(Ending::Failed(read.json("error")?)),
        Status::Cancelled => Some(Ending::Cancelled),
    };
    Ok(Request {
        id: summary.id,
        user: summary.user,
        tenant: summary.tenant,
        connection: summary.connection,
        action: summary.action,
        payload: value("payload", "payload_part")?,
        metadata: read.json("metadata")?,
        status: summary.status,
        attempt: summary.attempt,
        max_attempts: summary.max_attempts,
        continuations: summary.continuations,
        runner: summary.runner,
        epoch: summary.epoch,
        lease: summary.lease,
        cancel_requested: summary.cancel_requested,
        progress: summary.progress,
        seq: summary.seq,
        checkpoint: optional_value("checkpoint", "checkpoint_part")?,
        history: summary.history,
        ending,
        is_dead_letter_due: summary.is_dead_letter_due,
        redrive_of: read.optional_string("redrive_of")?.map(str::to_owned),
        redriven_as: read.optional_string("redriven_as")?.map(RequestId::from),
        subscribers: summary.subscribers,
        created_at: summary.created_at,
        started_at: summary.started_at,
        finished_at: summary.finished_at,
    })
}

/// The attributes that [`decode_summary`] reads.
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

/// What an item says of its request, without what was sent with it and what came of it.
///
/// # Errors
/// When an attribute is missing, of the wrong type, or has no meaning.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::protocol::{ErrorBody, ErrorCode};
    use crate::store::AttemptOutcome;

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            proptest::num::f64::NORMAL.prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn payloads() -> impl Strategy<Value = Value> {
        prop_oneof![4 => json_values(), 1 => (900..1_200_usize).prop_map(|bytes| json!("x".repeat(bytes)))]
    }

    /// Every status, with an ending where it is one.
    fn stands() -> impl Strategy<Value = (Status, Option<Ending>)> {
        let open = prop::sample::select(vec![Status::Pending, Status::Processing, Status::Retrying]);
        prop_oneof![
            open.prop_map(|status| (status, None)),
            payloads().prop_map(|value| (Status::Completed, Some(Ending::Completed(value)))),
            "[A-Z_]{1,12}".prop_map(|code| {
                let error = ErrorBody::new(ErrorCode::from(code.as_str()), "m").with_detail("k", 1);
                (Status::Failed, Some(Ending::Failed(error)))
            }),
            Just((Status::Cancelled, Some(Ending::Cancelled))),
        ]
    }

    fn past_attempts() -> impl Strategy<Value = Vec<PastAttempt>> {
        let outcome = prop::sample::select(vec![
            AttemptOutcome::Failed,
            AttemptOutcome::TimedOut,
            AttemptOutcome::Panicked,
            AttemptOutcome::Crashed,
        ]);
        let times = (proptest::option::of(0..4_000_000_000_000_u64), 0..4_000_000_000_000_u64);
        let past = (any::<u32>(), any::<u64>(), times, outcome, "[A-Z_]{1,12}", "\\PC{0,16}").prop_map(
            |(attempt, epoch, (started_at, ended_at), outcome, code, message)| PastAttempt {
                attempt,
                epoch,
                started_at: started_at.map(Timestamp::from_millis),
                ended_at: Timestamp::from_millis(ended_at),
                outcome,
                error: ErrorBody::new(ErrorCode::from(code.as_str()), message),
            },
        );
        proptest::collection::vec(past, 0..4)
    }

    prop_compose! {
        /// What was kept of a request that was run, or is to be, more than once.
        fn kept()(
            checkpoint in proptest::option::of(payloads()), history in past_attempts(), continuations in any::<u32>(),
            runner in prop::sample::select(vec![Runner::Processor, Runner::Worker]),
            flags in any::<(bool, bool)>(), redrives in proptest::array::uniform2(proptest::option::of("\\PC{1,16}")),
        ) -> Request {
            let nobody = Request::new(
                "r".into(), "u".into(), "t".into(), "c".into(), "a", Value::Null, Timestamp::default(),
            );
            let [redrive_of, redriven_as] = redrives;
            Request {
                checkpoint, history, continuations, runner, cancel_requested: flags.0, is_dead_letter_due: flags.1,
                redrive_of, redriven_as: redriven_as.map(RequestId::new), ..nobody
            }
        }
    }

    prop_compose! {
        fn requests()(
            texts in proptest::array::uniform5("\\PC{1,16}"), payload in payloads(),
            metadata in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4),
            counts in (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()),
            owner in proptest::option::of("[0-9a-f]{32}"), percentage in 0.0..=100.0_f64,
            note in json_values(), (status, ending) in stands(),
            subscribers in proptest::collection::btree_set("[A-Za-z0-9_-]{15}=", 0..4),
            times in proptest::array::uniform4(0..4_000_000_000_000_u64), ran in any::<bool>(), kept in kept(),
        ) -> Request {
            let [id, user, tenant, connection, action] = texts;
            let (attempt, max_attempts, epoch, seq) = counts;
            let [created_at, started_at, finished_at, expires_at] = times.map(Timestamp::from_millis);
            Request {
                id: RequestId::new(id), user: UserId::new(user), tenant: TenantId::new(tenant),
                connection: ConnectionId::new(connection), action, payload, metadata, status, attempt, max_attempts,
                epoch, lease: owner.map(|owner| Lease { epoch, owner, expires_at }),
                progress: Progress {
                    percentage, message: "half".into(), metadata: [("note".to_owned(), note)].into_iter().collect(),
                },
                seq: Seq::from_stored(seq), ending,
                subscribers: subscribers.into_iter().map(ConnectionId::new).collect(),
                created_at, started_at: ran.then_some(started_at), finished_at: ran.then_some(finished_at),
                ..kept
            }
        }
    }

    proptest! {
        #[test]
        fn a_request_reads_back_as_it_was_written(request in requests(), timer in proptest::option::of(any::<u64>())) {
            let Encoded { mut item, parts } = encode(&request, timer.map(Timestamp::from_millis), 8);
            item.insert("added_by_a_later_version".into(), AttributeValue::Bool(true));
            let lies_inside = |text: &AttributeValue| text.as_s().unwrap().len() <= part_item::MAX_INLINE_BYTES;
            prop_assert!(["payload", "checkpoint", "result"].into_iter().filter_map(|value| item.get(value)).all(lies_inside));
            prop_assert_eq!(decode(&item, &parts).unwrap(), request);
        }

        #[test]
        fn an_attribute_of_the_wrong_type_is_named(request in requests(), pick in any::<prop::sample::Index>()) {
            let Encoded { mut item, parts } = encode(&request, None, 8);
            let unread = ["request_id", "part", "status_shard"];
            let attributes: BTreeSet<String> = item.keys().filter(|key| !unread.contains(&key.as_str())).cloned().collect();
            let attribute = pick.get(&attributes.into_iter().collect::<Vec<_>>()).clone();
            let is_flag = matches!(item[&attribute], AttributeValue::Bool(_));
            item.insert(attribute.clone(), if is_flag { n(1) } else { AttributeValue::Bool(true) });
            let corrupt = decode(&item, &parts).unwrap_err();
            prop_assert_eq!(corrupt.attribute, attribute);
            prop_assert_eq!(corrupt.key, request.key().to_string());
        }

        /// What a list reads is all that its summary needs, and says the same as the whole.
        #[test]
        fn a_summary_reads_no_more_than_its_attributes(request in requests()) {
            let mut item = encode(&request, Some(request.created_at), 8).item;
            item.retain(|attribute, _| SUMMARY_ATTRIBUTES.contains(&attribute.as_str()));
            let summary = decode_summary(&item).unwrap();
            prop_assert_eq!(summary.key(), request.key());
            prop_assert_eq!(summary.cancel_requested, request.cancel_requested);
            prop_assert_eq!((summary.attempt, summary.max_attempts), (request.attempt, request.max_attempts));
            prop_assert_eq!((summary.continuations, summary.runner), (request.continuations, request.runner));
            prop_assert_eq!(summary.history, request.history);
            prop_assert_eq!(summary.is_dead_letter_due, request.is_dead_letter_due);
            prop_assert_eq!(summary.timer_at, Some(request.created_at));
            prop_assert_eq!((summary.status, summary.lease), (request.status, request.lease));
            prop_assert_eq!((summary.progress, summary.seq), (request.progress, request.seq));
            prop_assert_eq!(summary.subscribers, request.subscribers);
            prop_assert_eq!(summary.finished_at, request.finished_at);
        }

        #[test]
        fn an_item_is_the_same_from_a_stream_image_as_from_the_sdk(request in requests()) {
            let Encoded { item, parts } = encode(&request, Some(request.created_at), 8);
            let image = super::super::test_answers::wire_item(&item);
            let text: Value = serde_json::from_str(&image.to_string()).unwrap();
            let item = super::super::item_of_image(&text).unwrap();
            prop_assert_eq!(decode(&item, &parts).unwrap(), request);
        }
    }

    fn pending() -> Item {
        let created_at = Timestamp::from_secs(1_700_000_000);
        let payload = json!({"a": [true]});
        let request = Request {
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            ..Request::new(
                "r1".into(),
                "ann".into(),
                "acme".into(),
                "c1".into(),
                "report",
                payload,
                created_at,
            )
        };
        encode(&request, Some(Timestamp::from_secs(1_700_000_060)), 8).item
    }

    #[test]
    fn the_item_of_a_new_request() {
        let lines: BTreeSet<String> =
            pending().iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        insta::assert_snapshot!(lines.into_iter().collect::<Vec<_>>().join("\n"));
    }

    /// The text itself is cut short: it is 5,000 times the same.
    #[test]
    fn the_items_of_a_request_with_a_big_payload() {
        let request = Request { payload: json!("x".repeat(5_000)), ..decode(&pending(), &[]).unwrap() };
        let Encoded { item, mut parts } = encode(&request, None, 8);
        let lines = |item: Item| {
            let lines: BTreeSet<String> =
                item.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
            lines.into_iter().collect::<Vec<_>>().join("\n").replace(&"x".repeat(5_000), "x…")
        };
        let named = [KEY, PART, "payload", "payload_part"];
        let item = item.into_iter().filter(|(attribute, _)| named.contains(&attribute.as_str())).collect();
        insta::assert_snapshot!(format!("{}\n\n{}", lines(item), lines(parts.remove(0))));
    }

    #[test]
    fn what_has_no_meaning_is_corrupt() {
        let corrupted = |attribute: &str, value: AttributeValue| {
            let mut item = pending();
            item.insert(attribute.into(), value);
            decode(&item, &[]).unwrap_err().to_string()
        };
        let mut report =
            vec![corrupted("status", s("DONE")), corrupted("epoch", n("-1")), corrupted("payload", s("{"))];
        let mut item = pending();
        item.insert("status".into(), s("COMPLETED"));
        report.push(decode(&item, &[]).unwrap_err().to_string());
        item.insert("status".into(), s("FAILED"));
        item.insert("result".into(), s("1"));
        report.push(decode(&item, &[]).unwrap_err().to_string());
        item.remove(KEY);
        item.remove("status");
        report.push(decode(&item, &[]).unwrap_err().to_string());
        insta::assert_snapshot!(report.join("\n"), @r#"
        item "acme/ann/r1", attribute "status": expected one of ["PENDING", "PROCESSING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED"], found "DONE"
        item "acme/ann/r1", attribute "epoch": expected a number (u64), found -1
        item "acme/ann/r1", attribute "payload": is not the JSON it should be: EOF while parsing an object at line 1 column 1
        item "acme/ann/r1", attribute "result": is missing
        item "acme/ann/r1", attribute "error": is missing
        item "without a request_id", attribute "status": is missing
        "#);
    }
}
