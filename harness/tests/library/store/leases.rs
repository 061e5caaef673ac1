//! Claims, lease renewals, and the writes that only the holder of a lease may make.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer::ids::RequestKey;
use streamer::ports::Timestamp;
use streamer::protocol::Seq;
use streamer::store::dynamodb::QueueSettings;
use streamer::store::{
    Audience, Cancelled, Claimed, Delivery, Ending, Enqueued, LastReport, Lease, NewStatus, Progress,
    ReadRequests as _, Request, RunRequests as _, Runner, Status, StoreError, StoreErrorKind,
    SubmitRequests as _, SubscribeToRequests as _, Subscriber, SweepRequests as _,
};

use super::{LEASE, Store, at, delivered_to, ids, last, out_of_paper, past, request, string};

/// Returns the [`Audience`] that a lease holder's write is expected to return. The subscribers `names` have
/// seen no frame.
fn audience(names: &[&str], cancel_requested: bool) -> Audience {
    audience_seeing(Seq::default(), names, cancel_requested)
}

/// Returns an [`Audience`] whose subscribers `names` have seen the frames up to `seen`.
fn audience_seeing(seen: Seq, names: &[&str], cancel_requested: bool) -> Audience {
    let subscribers = ids(names).into_iter().map(|connection| Subscriber { connection, seen }).collect();
    Audience { subscribers, cancel_requested, part_ttls_set: false }
}

/// Returns the [`Audience`] that a terminal write is expected to return. It has the subscribers `names`, no
/// cancel request, and an expiry time on all part items.
fn terminal_audience(names: &[&str]) -> Audience {
    Audience { part_ttls_set: true, ..audience(names, false) }
}

/// Returns a progress report of a half-finished attempt.
fn half() -> Progress {
    let metadata = [("rows".to_owned(), json!(7))].into_iter().collect();
    Progress { percentage: 50.0, message: "Half".to_owned(), metadata }
}

fn millis(time: Timestamp) -> AttributeValue {
    AttributeValue::N(time.as_millis().to_string())
}

/// Performs the lease holder's write `name` (one of [`WRITES`]) at the time `at(seconds)`.
async fn write(
    store: &Store,
    name: &str,
    key: &RequestKey,
    lease: &Lease,
    seconds: u64,
) -> Result<Audience, StoreError> {
    let (queue, now, seq) = (&store.queue, at(seconds), Seq::start_of(lease.epoch).next());
    let (last, history) = (LastReport { progress: half(), seq, at: now }, [past(1, seconds)]);
    match name {
        "renew" => queue.renew(key, lease, now + LEASE).await,
        "progress" => queue.progress(key, lease, &half(), seq, now + LEASE).await,
        "checkpoint" => queue.checkpoint(key, lease, &json!({"page": 7}), &half(), seq, now + LEASE).await,
        "complete" => queue.complete(key, lease, &json!({"pages": 3}), &last).await,
        "complete with a big value" => queue.complete(key, lease, &json!("x".repeat(5_000)), &last).await,
        "fail" => queue.fail(key, lease, &out_of_paper(), &history, &last).await,
        "confirm_cancel" => queue.confirm_cancel(key, lease, &last).await,
        "retry_later" => {
            queue.retry_later(key, lease, &history, at(seconds + 30), Runner::Processor, &last).await
        }
        "continue_later" => queue.continue_later(key, lease, &last).await,
        _ => panic!("expected a name from WRITES, found {name}"),
    }
}

/// Name of each write that only the holder of a lease can make.
const WRITES: [&str; 9] = [
    "renew",
    "progress",
    "checkpoint",
    "complete",
    "complete with a big value",
    "fail",
    "confirm_cancel",
    "retry_later",
    "continue_later",
];

#[tokio::test]
async fn delayed_write_of_the_lease_holder_does_not_overwrite_a_newer_write() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    for big in [json!({"page": 9}), json!("x".repeat(5_000))] {
        let seq = Seq::start_of(lease.epoch).next().next();
        store.queue.checkpoint(&key, &lease, &big, &half(), seq, at(40) + LEASE).await.unwrap();
        let stored = store.item(&key).await;
        for name in ["renew", "progress", "checkpoint"] {
            let late = write(&store, name, &key, &lease, 39).await.unwrap_err();
            assert_eq!(late.kind(), StoreErrorKind::ConditionLost, "{name}: {late}");
        }
        let (older, until) = (json!("y".repeat(5_000)), at(39) + LEASE);
        let late = store.queue.checkpoint(&key, &lease, &older, &half(), seq, until).await.unwrap_err();
        assert_eq!(late.kind(), StoreErrorKind::ConditionLost, "{late}");
        assert_eq!(store.item(&key).await, stored);
    }
    // A repeated renewal succeeds, because a caller repeats a write whose response was lost.
    write(&store, "renew", &key, &lease, 40).await.unwrap();
}

#[tokio::test]
async fn duplicate_of_an_old_claim_cannot_claim_a_request_that_has_yielded() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    for runner in [Runner::Worker, Runner::Processor] {
        store.queue.continue_later(&key, &lease, &last(lease.epoch, 5)).await.unwrap();
        let stored = store.item(&key).await;
        let late = store.try_claim(&key, "first", runner, 6).await;
        assert!(!matches!(late, Claimed::Won(..)), "{late:?}");
        assert_eq!(store.item(&key).await, stored, "a refused claim leaves the request unchanged");
    }
    let Claimed::Won(request, _) = store.try_claim(&key, "second", Runner::Worker, 7).await else { panic!() };
    assert_eq!((request.attempt, request.continuations), (1, 1));
}

#[tokio::test]
async fn request_id_can_be_reused_only_after_its_request_has_expired() {
    let store = Store::new().await;
    let first = request("r1");
    assert_eq!(store.queue.enqueue(&first).await.unwrap(), Enqueued::New);
    assert_eq!(store.get(&first.key()).await, first);
    let again = Request { payload: json!("another"), created_at: at(5), ..request("r1") };
    assert_eq!(store.queue.enqueue(&again).await.unwrap(), Enqueued::Existing(Box::new(first.clone())));
    for (tenant, user) in [("acme", "bob"), ("other", "ann")] {
        let elsewhere = Request { tenant: tenant.into(), user: user.into(), ..request("r1") };
        assert_eq!(store.queue.enqueue(&elsewhere).await.unwrap(), Enqueued::New);
    }
    let lease = store.claim(&first.key(), "first", 1).await;
    write(&store, "complete", &first.key(), &lease, 2).await.unwrap();
    let expiry = at(2) + QueueSettings::default().ttl;
    let at_expiry = Request { created_at: expiry, ..request("r1") };
    assert!(matches!(store.queue.enqueue(&at_expiry).await.unwrap(), Enqueued::Existing(_)));
    let late = Request { created_at: Timestamp::from_secs(expiry.as_secs() + 1), ..request("r1") };
    assert_eq!(store.queue.enqueue(&late).await.unwrap(), Enqueued::New);
    assert_eq!(store.get(&first.key()).await, late, "no attribute of the expired request remains");
}

#[tokio::test]
async fn pending_request_is_claimed_by_exactly_one_owner() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let claimed = store.try_claim(&key, "first", Runner::Processor, 1).await;
    let Claimed::Won(won, lease) = claimed else { panic!("{claimed:?}") };
    assert_eq!(lease, Lease { epoch: 1, owner: "first".to_owned(), expires_at: at(61) });
    let expected = Request {
        status: Status::Processing,
        attempt: 1,
        epoch: 1,
        lease: Some(lease.clone()),
        started_at: Some(at(1)),
        ..request("r1")
    };
    assert_eq!(*won, expected);
    let second = store.try_claim(&key, "second", Runner::Processor, 2).await;
    assert!(matches!(second, Claimed::NotPending(Status::Processing)), "{second:?}");
    let again = store.try_claim(&key, "first", Runner::Processor, 2).await;
    let Claimed::Won(_, held) = again else {
        panic!("expected the repeated claim of the owner to succeed: {again:?}")
    };
    assert_eq!(held, lease, "a repeated claim by the owner returns the first lease");
    let absent = RequestKey::from_stored("acme/ann/r2");
    let missing = store.try_claim(&absent, "first", Runner::Processor, 1).await;
    assert!(matches!(missing, Claimed::Missing), "{missing:?}");
    assert_eq!(
        store.queue.get(&absent).await.unwrap(),
        None,
        "the claim of a missing request creates no request"
    );
}

#[tokio::test]
async fn lease_renewal_extends_the_lease_and_returns_subscribers_and_cancel_flag() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let before = store.get(&key).await;
    assert_eq!(write(&store, "renew", &key, &lease, 20).await.unwrap(), audience(&["c1"], false));
    let extended = Lease { expires_at: at(20) + LEASE, ..lease.clone() };
    assert_eq!(store.get(&key).await, Request { lease: Some(extended), ..before });
    assert_eq!(store.queue.cancel(&key, at(21)).await.unwrap(), Cancelled::Requested);
    assert_eq!(write(&store, "renew", &key, &lease, 22).await.unwrap(), audience(&["c1"], true));
    assert_eq!(write(&store, "progress", &key, &lease, 23).await.unwrap(), audience(&["c1"], true));
}

#[tokio::test]
async fn progress_write_stores_the_progress_and_extends_the_lease() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let before = store.get(&key).await;
    assert_eq!(write(&store, "progress", &key, &lease, 20).await.unwrap(), audience(&["c1"], false));
    let extended = Lease { expires_at: at(20) + LEASE, ..lease };
    let seq = Seq::start_of(1).next();
    assert_eq!(store.get(&key).await, Request { lease: Some(extended), progress: half(), seq, ..before });
}

#[tokio::test]
async fn terminal_write_stores_the_outcome_an_expiry_time_and_a_delivery_timer() {
    let store = Store::new().await;
    let big = json!("x".repeat(5_000));
    for (n, (name, ending)) in [
        ("complete", Ending::Completed(json!({"pages": 3}))),
        ("complete with a big value", Ending::Completed(big)),
        ("fail", Ending::Failed(out_of_paper())),
        ("confirm_cancel", Ending::Cancelled),
    ]
    .into_iter()
    .enumerate()
    {
        let (key, lease) = store.claimed(&format!("r{n}")).await;
        let before = store.get(&key).await;
        assert_eq!(write(&store, name, &key, &lease, 5).await.unwrap(), terminal_audience(&["c1"]), "{name}");
        let expected = Request {
            status: ending.status(),
            lease: None,
            progress: half(),
            seq: Seq::start_of(1).next(),
            history: if name == "fail" { vec![past(1, 5)] } else { Vec::new() },
            is_dead_letter_due: name == "fail",
            ending: Some(ending),
            finished_at: Some(at(5)),
            ..before
        };
        assert_eq!(store.get(&key).await, expected, "{name}");
        let item = store.item(&key).await;
        let ttl = at(5) + QueueSettings::default().ttl;
        assert_eq!(item["ttl"], AttributeValue::N(ttl.as_secs().to_string()), "{name}");
        assert_eq!(item["timer_at"], millis(at(35)), "{name}: the terminal write sets a delivery timer");
        assert!(!item.contains_key("lease_expires_at") && !item.contains_key("cancel_requested"), "{name}");
    }
}

/// Invariant 3: an attempt that has lost its lease changes neither the request's item nor a stored result.
/// The store refuses each write of that attempt with the error kind `Fenced`.
#[tokio::test]
async fn attempt_that_has_lost_its_lease_changes_nothing() {
    let store = Store::new().await;
    let (key, first) = store.claimed("r1").await;
    write(&store, "retry_later", &key, &first, 2).await.unwrap();
    store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(40)).await.unwrap();
    let second = store.claim(&key, "second", 41).await;
    let forged = Lease { epoch: second.epoch, ..first.clone() };
    let running = store.item(&key).await;
    for name in WRITES {
        for lease in [&first, &forged] {
            let error = write(&store, name, &key, lease, 42).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Fenced, "{name}");
            assert_eq!(store.item(&key).await, running, "{name}");
        }
    }
    write(&store, "complete with a big value", &key, &second, 50).await.unwrap();
    let (ended, whole) = (store.item(&key).await, store.get(&key).await);
    // After the terminal write, even the holder of the lease can neither renew it nor change the status.
    for name in ["renew", "progress", "checkpoint", "fail", "confirm_cancel", "retry_later", "continue_later"]
    {
        for lease in [&first, &second] {
            let error = write(&store, name, &key, lease, 51).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Fenced, "{name}");
        }
    }
    for name in ["complete", "complete with a big value"] {
        let error = write(&store, name, &key, &first, 51).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Fenced, "{name}");
    }
    store.queue.record_delivery(&key, first.epoch, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert_eq!(store.item(&key).await, ended);
    assert_eq!(store.get(&key).await, whole);
    let absent = RequestKey::from_stored("acme/ann/r2");
    for name in WRITES {
        let error = write(&store, name, &absent, &first, 52).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Fenced, "{name}: a write to a missing request is fenced");
    }
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}

#[tokio::test]
async fn repeated_terminal_write_succeeds_and_leaves_the_item_unchanged() {
    let store = Store::new().await;
    for (n, name) in ["complete", "fail", "confirm_cancel"].into_iter().enumerate() {
        let (key, lease) = store.claimed(&format!("r{n}")).await;
        write(&store, name, &key, &lease, 5).await.unwrap();
        let first = store.item(&key).await;
        assert_eq!(write(&store, name, &key, &lease, 9).await.unwrap(), terminal_audience(&["c1"]), "{name}");
        assert_eq!(store.item(&key).await, first, "{name}");
    }
}

#[tokio::test]
async fn retry_starts_when_due_with_higher_sequence_numbers_than_the_failed_attempt() {
    let store = Store::new().await;
    let (key, first) = store.claimed("r1").await;
    write(&store, "progress", &key, &first, 2).await.unwrap();
    let subscribers = write(&store, "retry_later", &key, &first, 3).await.unwrap();
    assert_eq!(subscribers, audience(&["c1"], false));
    let waiting = store.get(&key).await;
    assert_eq!((waiting.status, waiting.lease, waiting.ending), (Status::Retrying, None, None));
    assert_eq!((waiting.attempt, waiting.seq), (1, Seq::start_of(2)));
    assert_eq!(store.item(&key).await["timer_at"], millis(at(33)));
    let refused = store.try_claim(&key, "second", Runner::Processor, 4).await;
    assert!(matches!(refused, Claimed::NotPending(Status::Retrying)), "{refused:?}");
    store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(33)).await.unwrap();
    let second = store.claim(&key, "second", 34).await;
    assert_eq!(second.epoch, 2);
    let running = store.get(&key).await;
    assert_eq!((running.attempt, running.epoch), (2, 2));
    write(&store, "complete", &key, &second, 40).await.unwrap();
    assert_eq!(store.get(&key).await.seq, Seq::start_of(2).next());
}

#[tokio::test]
async fn retry_of_a_running_request_is_refused_after_a_cancel_request() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    assert_eq!(store.queue.cancel(&key, at(2)).await.unwrap(), Cancelled::Requested);
    let before = store.item(&key).await;
    let error = write(&store, "retry_later", &key, &lease, 3).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ConditionLost);
    assert_eq!(store.item(&key).await, before);
    write(&store, "confirm_cancel", &key, &lease, 4).await.unwrap();
    assert_eq!(store.get(&key).await.status, Status::Cancelled);
}

/// Completes a request with the subscribers c1 and c2, and delivers no terminal frame.
async fn completed_for_two(store: &Store) -> (RequestKey, Lease) {
    let request = Request { subscribers: ids(&["c1", "c2"]), ..request("r1") };
    store.queue.enqueue(&request).await.unwrap();
    let key = request.key();
    let lease = store.claim(&key, "first", 1).await;
    write(store, "complete", &key, &lease, 2).await.unwrap();
    (key, lease)
}

#[tokio::test]
async fn delivery_to_the_last_subscriber_removes_the_request_from_the_timer_index() {
    let store = Store::new().await;
    let (key, lease) = completed_for_two(&store).await;
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c2"]), false)).await.unwrap();
    assert_eq!(store.get(&key).await.subscribers, ids(&["c1"]));
    assert!(store.is_in_timers(&key).await);
    // c3 subscribes while the terminal frame is sent to c1.
    store.edit(&key, "SET subscribers.c3 = :value", AttributeValue::N("1".to_owned())).await;
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert_eq!(store.get(&key).await.subscribers, ids(&["c3"]));
    assert!(store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c3"]), true)).await.unwrap();
    assert!(store.get(&key).await.subscribers.is_empty());
    assert!(!store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c3"]), true)).await.unwrap();
}

/// While the terminal frame is sent to c1, c2 subscribes and c1 unsubscribes. The number of subscribers stays
/// one, but c2 does not have the terminal frame.
#[tokio::test]
async fn new_subscriber_that_joins_during_a_delivery_still_awaits_the_terminal_frame() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    write(&store, "complete", &key, &lease, 2).await.unwrap();
    store
        .edit(&key, "SET subscribers.c2 = :value REMOVE subscribers.c1", AttributeValue::N("1".to_owned()))
        .await;
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert_eq!(store.get(&key).await.subscribers, ids(&["c2"]));
    assert!(store.is_in_timers(&key).await);
}

#[tokio::test]
async fn subscriber_that_leaves_during_a_delivery_does_not_keep_the_delivery_timer_set() {
    let store = Store::new().await;
    let (key, lease) = completed_for_two(&store).await;
    store.queue.unsubscribe(&key, &"c2".into()).await.unwrap();
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c1", "c2"]), true)).await.unwrap();
    assert!(store.get(&key).await.subscribers.is_empty());
    assert!(!store.is_in_timers(&key).await);
}

#[tokio::test]
async fn attribute_added_by_a_later_version_of_streamer_survives_every_write() {
    let store = Store::new().await;
    let reached = ids(&["c1"]);
    let steps: [&[&str]; 4] = [
        &["renew", "progress", "checkpoint", "retry_later"],
        &["complete"],
        &["fail"],
        &["complete with a big value"],
    ];
    for (n, names) in steps.into_iter().enumerate() {
        let key = store.enqueue(&format!("r{n}"), 0).await;
        store.edit(&key, "SET added_later = :value", string("kept")).await;
        let lease = store.claim(&key, "first", 1).await;
        for name in names {
            write(&store, name, &key, &lease, 2).await.unwrap();
        }
        if names.contains(&"retry_later") {
            store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(40)).await.unwrap();
            store.queue.cancel(&key, at(41)).await.unwrap();
            store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
        } else {
            let is_dead_letter_sent = names.contains(&"fail");
            let delivery = Delivery { is_dead_letter_sent, ..delivered_to(&reached, true) };
            store.queue.record_delivery(&key, lease.epoch, delivery).await.unwrap();
        }
        assert_eq!(store.item(&key).await["added_later"], string("kept"), "{names:?}");
        assert!(!store.is_in_timers(&key).await, "{names:?}");
    }
}

#[tokio::test]
async fn error_about_a_corrupt_request_names_the_request_and_the_attribute() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    store.edit(&key, "SET payload = :value", string("{")).await;
    let corrupt = "corrupt item: item \"acme/ann/r1\", attribute \"payload\": is not the expected JSON: \
                   EOF while parsing an object at line 1 column 1";
    let error = store.queue.get(&key).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Corrupt, corrupt));
    let error = store.queue.enqueue(&request("r1")).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Corrupt, corrupt));
    let claimed = store.try_claim(&key, "first", Runner::Processor, 1).await;
    let Claimed::Unreadable(lease, error) = claimed else { panic!("{claimed:?}") };
    assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Corrupt, corrupt));
    let audience = store.queue.fail(&key, &lease, &out_of_paper(), &[], &last(1, 2)).await.unwrap();
    assert_eq!(audience, terminal_audience(&["c1"]));
    let value: Value = serde_json::from_str(store.item(&key).await["error"].as_s().unwrap()).unwrap();
    assert_eq!(value["code"], "OUT_OF_PAPER");
}
