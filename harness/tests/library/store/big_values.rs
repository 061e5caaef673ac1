//! Payloads and results too large for the request's item. The store keeps each in a separate part item.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer::ids::RequestKey;
use streamer::protocol::{ErrorBody, ErrorCode};
use streamer::store::dynamodb::{QueueSettings, part_item};
use streamer::store::{
    Cancelled, Claimed, Delivery, Ending, Enqueued, NewStatus, PageRequest, ReadRequests as _, Request,
    RunRequests as _, Runner, Status, StoreErrorKind, SubmitRequests as _, SubscribeToRequests as _,
    SweepRequests as _,
};

use super::{Store, at, delivered_to, ids, last, number, request, string};

/// Returns a JSON string that has `bytes` bytes when serialized.
fn value_of(bytes: usize) -> Value {
    json!("x".repeat(bytes - 2))
}

fn big() -> Value {
    value_of(100_000)
}

fn big_request(id: &str) -> Request {
    Request { payload: big(), ..request(id) }
}

async fn enqueue_big(store: &Store, id: &str) -> RequestKey {
    assert_eq!(store.queue.enqueue(&big_request(id)).await.unwrap(), Enqueued::New);
    big_request(id).key()
}

/// Returns the `ttl` attribute of the payload's part item; `None` if the part item does not expire.
async fn payload_ttl(store: &Store, key: &RequestKey) -> Option<AttributeValue> {
    store.part(key, part_item::PAYLOAD_PART).await.unwrap().get("ttl").cloned()
}

/// Returns the expected `ttl` of the part items of a request that became terminal at `seconds`. Part items
/// expire 48 h after their request.
fn ttl_of_parts(seconds: u64) -> AttributeValue {
    let ttl = at(seconds) + QueueSettings::default().ttl + std::time::Duration::from_hours(48);
    number(ttl.as_secs())
}

#[tokio::test]
async fn payload_above_the_inline_limit_is_stored_in_a_part_item() {
    let store = Store::new().await;
    for (bytes, is_part) in [(part_item::MAX_INLINE_BYTES, false), (part_item::MAX_INLINE_BYTES + 1, true)] {
        let request = Request { payload: value_of(bytes), ..request(&format!("r{bytes}")) };
        store.queue.enqueue(&request).await.unwrap();
        let item = store.item(&request.key()).await;
        assert_eq!(item.contains_key("payload_part"), is_part);
        assert_eq!(item.contains_key("payload"), !is_part);
        assert_eq!(store.part(&request.key(), part_item::PAYLOAD_PART).await.is_some(), is_part);
        assert_eq!(store.get(&request.key()).await, request);
    }
}

#[tokio::test]
async fn claim_returns_a_payload_that_is_stored_in_a_part_item() {
    let store = Store::new().await;
    let key = enqueue_big(&store, "r1").await;
    let claimed = store.try_claim(&key, "first", Runner::Processor, 1).await;
    let Claimed::Won(won, _) = claimed else { panic!("{claimed:?}") };
    assert_eq!(won.payload, big());
    let again = store.try_claim(&key, "second", Runner::Processor, 1).await;
    assert!(matches!(again, Claimed::NotPending(Status::Processing)), "{again:?}");
}

#[tokio::test]
async fn enqueue_of_an_existing_request_id_returns_the_stored_request_and_payload() {
    let store = Store::new().await;
    enqueue_big(&store, "r1").await;
    store.enqueue("r2", 0).await;
    for (again, stored) in [
        (big_request("r1"), big_request("r1")),
        (request("r1"), big_request("r1")),
        (big_request("r2"), request("r2")),
    ] {
        let enqueued = store.queue.enqueue(&again).await.unwrap();
        assert_eq!(enqueued, Enqueued::Existing(Box::new(stored)));
    }
    let key = request("r2").key();
    assert_eq!(
        store.part(&key, part_item::PAYLOAD_PART).await,
        None,
        "an enqueue that finds an existing request leaves no part item"
    );
}

#[tokio::test]
async fn big_result_is_stored_in_a_part_item_that_expires() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    store.queue.complete(&key, &lease, &big(), &last(1, 5)).await.unwrap();
    assert_eq!(store.get(&key).await.ending, Some(Ending::Completed(big())));
    assert_eq!(store.item(&key).await["result_part"], string("result#1"));
    assert_eq!(store.part(&key, "result#1").await.unwrap()["ttl"], ttl_of_parts(5));
    let listed = store.queue.get_by_status(Status::Completed, PageRequest::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1, "the list contains the request and no part item");
    assert!(listed.unreadable.is_empty());
}

/// A fenced attempt has written its big result to a part item before the store refuses its terminal write. No
/// request refers to that part item.
#[tokio::test]
async fn big_result_of_a_fenced_attempt_is_never_returned_and_expires() {
    let store = Store::new().await;
    let (key, first) = store.claimed("r1").await;
    store.queue.retry_later(&key, &first, &[], at(2), Runner::Processor, &last(1, 2)).await.unwrap();
    store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(3)).await.unwrap();
    let second = store.claim(&key, "second", 4).await;
    let late = store.queue.complete(&key, &first, &value_of(9_000), &last(1, 5)).await;
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::Fenced);
    assert_eq!(store.part(&key, "result#1").await.unwrap()["ttl"], ttl_of_parts(5));
    store.queue.complete(&key, &second, &value_of(8_000), &last(2, 6)).await.unwrap();
    assert_eq!(store.get(&key).await.ending, Some(Ending::Completed(value_of(8_000))));
}

/// The store operation that makes a request terminal also sets the expiry time, because the process may crash
/// before the delivery.
#[tokio::test]
async fn every_kind_of_terminal_write_sets_the_expiry_time_of_a_big_payload() {
    let store = Store::new().await;
    for name in ["complete", "fail", "confirm_cancel", "cancel", "update_status"] {
        let key = enqueue_big(&store, name).await;
        let error = ErrorBody::new(ErrorCode::ProcessingFailed, "m");
        let released = match name {
            "cancel" => match store.queue.cancel(&key, at(5)).await.unwrap() {
                Cancelled::Now { part_ttls_set, .. } => part_ttls_set,
                other @ (Cancelled::Requested | Cancelled::Ended(_) | Cancelled::HasOtherSubscribers) => {
                    panic!("{other:?}")
                }
            },
            "update_status" => {
                let failed = NewStatus::Failed(error);
                store.queue.update_status(&key, Status::Pending, failed, at(5)).await.unwrap();
                true
            }
            _ => {
                let lease = store.claim(&key, "first", 1).await;
                let written = match name {
                    "complete" => store.queue.complete(&key, &lease, &json!(1), &last(1, 5)).await,
                    "fail" => store.queue.fail(&key, &lease, &error, &[], &last(1, 5)).await,
                    _ => store.queue.confirm_cancel(&key, &lease, &last(1, 5)).await,
                };
                written.unwrap().part_ttls_set
            }
        };
        assert!(released, "{name}");
        assert_eq!(payload_ttl(&store, &key).await, Some(ttl_of_parts(5)), "{name}");
        assert!(store.is_in_timers(&key).await, "{name}: an undelivered request is in the timer index");
        let epoch = store.get(&key).await.epoch;
        let is_dead_letter_sent = store.get(&key).await.is_dead_letter_due;
        let reached = ids(&["c1"]);
        let delivery =
            Delivery { is_dead_letter_sent, part_ttls_set: released, ..delivered_to(&reached, true) };
        store.queue.record_delivery(&key, epoch, delivery).await.unwrap();
        assert!(!store.is_in_timers(&key).await, "{name}");
        assert_eq!(store.get(&key).await.payload, big(), "{name}");
    }
}

/// The part item has no expiry time if the store failed, or the process crashed, between the terminal write
/// and the write of the expiry time.
#[tokio::test]
async fn missing_expiry_time_of_a_big_payload_is_set_before_the_timer_is_cleared() {
    let store = Store::new().await;
    for name in ["record_delivery", "unsubscribe"] {
        let key = enqueue_big(&store, name).await;
        store.queue.cancel(&key, at(7)).await.unwrap();
        let update = store.client.update_item().table_name(&store.requests_table);
        let update = update.set_key(Some(part_item::key(&key, part_item::PAYLOAD_PART)));
        let update = update.update_expression("REMOVE #ttl").expression_attribute_names("#ttl", "ttl");
        update.send().await.unwrap();
        assert_eq!(payload_ttl(&store, &key).await, None, "{name}");
        match name {
            "record_delivery" => {
                store.queue.record_delivery(&key, 0, delivered_to(&ids(&["c1"]), true)).await.unwrap()
            }
            _ => store.queue.unsubscribe(&key, &"c1".into()).await.unwrap(),
        }
        assert_eq!(payload_ttl(&store, &key).await, Some(ttl_of_parts(7)), "{name}");
        assert!(!store.is_in_timers(&key).await, "{name}");
    }
}

#[tokio::test]
async fn big_payload_of_an_open_request_never_expires() {
    let store = Store::new().await;
    let key = enqueue_big(&store, "r1").await;
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let lease = store.claim(&key, "first", 1).await;
    store.queue.record_delivery(&key, lease.epoch, delivered_to(&[], true)).await.unwrap();
    assert_eq!(payload_ttl(&store, &key).await, None);
    assert!(store.is_in_timers(&key).await, "an open request stays in the timer index");
}

/// A new request may replace an expired request with the same id. The new request must not get the payload
/// of the expired request.
#[tokio::test]
async fn new_request_with_the_id_of_an_expired_request_has_its_own_payload() {
    let store = Store::new().await;
    let key = enqueue_big(&store, "r1").await;
    store.queue.cancel(&key, at(1)).await.unwrap();
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let later = at(2) + QueueSettings::default().ttl;
    let payload = value_of(6_000);
    let another = Request { payload: payload.clone(), created_at: later, ..request("r1") };
    assert_eq!(store.queue.enqueue(&another).await.unwrap(), Enqueued::New);
    assert_eq!(store.get(&key).await.payload, payload);
    assert_eq!(payload_ttl(&store, &key).await, None);
}

#[tokio::test]
async fn error_about_a_missing_part_item_names_the_part_item() {
    let store = Store::new().await;
    let key = enqueue_big(&store, "r1").await;
    let delete = store.client.delete_item().table_name(&store.requests_table);
    delete.set_key(Some(part_item::key(&key, part_item::PAYLOAD_PART))).send().await.unwrap();
    let problem = "corrupt item: item \"acme/ann/r1\", attribute \"payload_part\": \
                   names the part item \"payload\", which does not exist";
    let error = store.queue.get(&key).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Corrupt, problem));
    let claimed = store.try_claim(&key, "first", Runner::Processor, 1).await;
    let Claimed::Unreadable(_, error) = claimed else { panic!("{claimed:?}") };
    assert_eq!(error.to_string(), problem);
}
