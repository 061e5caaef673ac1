use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::{ConnectionId, RequestId, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode, Seq};
use crate::store::dynamodb::codec::{Item, n, s};
use crate::store::dynamodb::part_item;
use crate::store::{AttemptOutcome, Ending, Lease, PastAttempt, Progress, Request, Runner, Status};

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

/// Generates each status, with an ending if the status is terminal.
fn statuses() -> impl Strategy<Value = (Status, Option<Ending>)> {
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
    /// Generates the values that a request keeps across attempts, invocations and redrives.
    fn kept_values()(
        checkpoint in proptest::option::of(payloads()), history in past_attempts(), continuations in any::<u32>(),
        runner in prop::sample::select(vec![Runner::Processor, Runner::Worker]),
        flags in any::<(bool, bool)>(), redrives in proptest::array::uniform2(proptest::option::of("\\PC{1,16}")),
    ) -> Request {
        let base = Request::new(
            "r".into(), "u".into(), "t".into(), "c".into(), "a", Value::Null, Timestamp::default(),
        );
        let [redrive_of, redriven_as] = redrives;
        Request {
            checkpoint, history, continuations, runner, cancel_requested: flags.0, is_dead_letter_due: flags.1,
            redrive_of, redriven_as: redriven_as.map(RequestId::new), ..base
        }
    }
}

prop_compose! {
    fn requests()(
        texts in proptest::array::uniform5("\\PC{1,16}"), payload in payloads(),
        metadata in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4),
        counts in (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()),
        owner in proptest::option::of("[0-9a-f]{32}"), percentage in 0.0..=100.0_f64,
        note in json_values(), (status, ending) in statuses(),
        subscribers in proptest::collection::btree_set("[A-Za-z0-9_-]{15}=", 0..4),
        times in proptest::array::uniform4(0..4_000_000_000_000_u64), ran in any::<bool>(), kept in kept_values(),
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
    fn request_item_decodes_to_the_encoded_request(request in requests(), timer in proptest::option::of(any::<u64>())) {
        let Encoded { mut item, parts } = encode(&request, timer.map(Timestamp::from_millis), 8);
        item.insert("added_by_a_later_version".into(), AttributeValue::Bool(true));
        let is_within_limit = |text: &AttributeValue| text.as_s().unwrap().len() <= part_item::MAX_INLINE_BYTES;
        let mut values = ["payload", "checkpoint", "result"].into_iter().filter_map(|value| item.get(value));
        prop_assert!(values.all(is_within_limit));
        prop_assert_eq!(decode(&item, &parts).unwrap(), request);
    }

    #[test]
    fn request_attribute_of_the_wrong_type_is_named_in_the_error(
        request in requests(), pick in any::<prop::sample::Index>(),
    ) {
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

    /// A list query projects only `SUMMARY_ATTRIBUTES`: the summary needs no other attribute, and equals the full
    /// request.
    #[test]
    fn request_summary_decodes_from_the_summary_attributes_alone(request in requests()) {
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
    fn request_decodes_from_a_stream_image_as_from_an_sdk_item(request in requests()) {
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
        ..Request::new("r1".into(), "ann".into(), "acme".into(), "c1".into(), "report", payload, created_at)
    };
    encode(&request, Some(Timestamp::from_secs(1_700_000_060)), 8).item
}

#[test]
fn new_request_is_encoded_as_an_item_without_lease_or_ttl() {
    let lines: BTreeSet<String> = pending().iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
    insta::assert_snapshot!(lines.into_iter().collect::<Vec<_>>().join("\n"));
}

/// The snapshot shows the payload of 5,000 equal characters as `x…`.
#[test]
fn payload_above_the_inline_limit_is_encoded_as_a_part_item() {
    let request = Request { payload: json!("x".repeat(5_000)), ..decode(&pending(), &[]).unwrap() };
    let Encoded { item, mut parts } = encode(&request, None, 8);
    let lines = |item: Item| {
        let lines: BTreeSet<String> = item.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        lines.into_iter().collect::<Vec<_>>().join("\n").replace(&"x".repeat(5_000), "x…")
    };
    let named = [KEY, PART, "payload", "payload_part"];
    let item = item.into_iter().filter(|(attribute, _)| named.contains(&attribute.as_str())).collect();
    insta::assert_snapshot!(format!("{}\n\n{}", lines(item), lines(parts.remove(0))));
}

#[test]
fn request_item_with_an_invalid_or_missing_attribute_is_corrupt() {
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
    item "acme/ann/r1", attribute "payload": is not the expected JSON: EOF while parsing an object at line 1 column 1
    item "acme/ann/r1", attribute "result": is missing
    item "acme/ann/r1", attribute "error": is missing
    item "without a request_id", attribute "status": is missing
    "#);
}
