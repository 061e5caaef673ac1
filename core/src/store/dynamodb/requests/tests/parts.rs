//! Tests of part items, the separate items that hold a request's large values.

use aws_sdk_dynamodb::operation::transact_write_items::{TransactWriteItemsInput, TransactWriteItemsOutput};

use super::errors::big_request;
use super::*;
use crate::store::dynamodb::part_item;

fn parts_of(item: &Request) -> (Item, Item) {
    let encoded = request_item::encode(item, Some(NOW + Duration::from_secs(60)), 8);
    let [payload] = encoded.parts.try_into().unwrap();
    (encoded.item, payload)
}

fn cancelled(reasons: Value) -> HttpResponse {
    http(
        400,
        &json_value!({
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
            "CancellationReasons": reasons,
        }),
    )
}

#[tokio::test]
async fn large_payload_is_put_in_one_transaction_with_its_request() {
    let rule = mock!(Client::transact_write_items).then_compute_output(|sent: &TransactWriteItemsInput| {
        let (item, payload) = parts_of(&big_request());
        let puts: Vec<_> = sent.transact_items().iter().map(|write| write.put().unwrap()).collect();
        assert_eq!((puts.len(), puts[0].item(), puts[1].item()), (2, &item, &payload));
        assert!(puts.iter().all(|put| put.table_name() == "requests"));
        let is_new =
            "attribute_not_exists(request_id) OR (#ttl < :now AND attribute_not_exists(dead_letter))";
        assert_eq!(puts[0].condition_expression(), Some(is_new));
        assert_eq!(puts[1].condition_expression(), None);
        TransactWriteItemsOutput::builder().build()
    });
    assert_eq!(queue(&rule).enqueue(&big_request()).await.unwrap(), Enqueued::New);
    assert_eq!(rule.num_calls(), 1);
}

#[tokio::test]
async fn enqueue_of_an_existing_key_returns_the_stored_large_payload() {
    let transaction = mock!(Client::transact_write_items).then_http_response(|| {
        let (item, _) = parts_of(&big_request());
        let failed =
            json_value!({"Code": "ConditionalCheckFailed", "Message": "m", "Item": wire_item(&item)});
        cancelled(json_value!([failed, {"Code": "None"}]))
    });
    let part = mock!(Client::get_item)
        .match_requests(|get: &GetItemInput| {
            get.key() == Some(&part_item::key(&key(), "payload")) && get.consistent_read() == Some(true)
        })
        .then_http_response(|| http(200, &json_value!({"Item": wire_item(&parts_of(&big_request()).1)})));
    let queue = queue_of([&transaction, &part], QueueSettings::default());
    let other = Request { payload: json_value!("y".repeat(6_000)), ..request() };
    let enqueued = queue.enqueue(&other).await.unwrap();
    assert_eq!(enqueued, Enqueued::Existing(Box::new(big_request())));
}

#[tokio::test(start_paused = true)]
async fn transaction_cancellation_reasons_map_to_store_error_kinds() {
    for (code, message, kind, calls) in [
        ("TransactionConflict", "busy", StoreErrorKind::Unavailable, 3),
        ("ProvisionedThroughputExceeded", "slow", StoreErrorKind::Throttled, 3),
        ("ThrottlingError", "slow", StoreErrorKind::Throttled, 3),
        ("ItemCollectionSizeLimitExceeded", "big", StoreErrorKind::TooLarge, 1),
        ("ValidationError", "Item size has exceeded the maximum allowed size", StoreErrorKind::TooLarge, 1),
        ("ValidationError", "The type does not match", StoreErrorKind::Misuse, 1),
    ] {
        let rule = mock!(Client::transact_write_items)
            .sequence()
            .http_response(move || {
                cancelled(json_value!([{"Code": "None"}, {"Code": code, "Message": message}]))
            })
            .repeatedly()
            .build();
        let error = queue(&rule).enqueue(&big_request()).await.unwrap_err();
        assert_eq!(
            (error.kind(), rule.num_calls()),
            (kind, calls),
            "enqueue fails with {kind:?} after {calls} calls when the reason is {code}"
        );
        assert!(error.source().is_some(), "the error after {code} has the SDK error as its source");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_or_conflicting_transaction_is_retried() {
    for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
        let rule = mock!(Client::transact_write_items)
            .sequence()
            .http_response(move || cancelled(json_value!([{"Code": code}, {"Code": "None"}])))
            .output(|| TransactWriteItemsOutput::builder().build())
            .build();
        assert_eq!(
            queue(&rule).enqueue(&big_request()).await.unwrap(),
            Enqueued::New,
            "the retry after {code} queues the request"
        );
        assert_eq!(rule.num_calls(), 2, "the transaction is retried once after {code}");
    }
}

/// A retry would only return the same existing request.
#[tokio::test]
async fn transaction_with_a_failed_condition_is_not_retried_despite_throttling() {
    let transaction = mock!(Client::transact_write_items).then_http_response(|| {
        let old = wire_item(&item_of(&request()));
        cancelled(json_value!([{"Code": "ConditionalCheckFailed", "Item": old}, {"Code": "ThrottlingError"}]))
    });
    let enqueued = queue(&transaction).enqueue(&big_request()).await.unwrap();
    assert_eq!((enqueued, transaction.num_calls()), (Enqueued::Existing(Box::new(request())), 1));
}

/// The claim has succeeded, so a temporarily unavailable payload must not waste the attempt.
#[tokio::test(start_paused = true)]
async fn claim_rereads_a_temporarily_unavailable_payload_part_item() {
    let claimed = Request { payload: big_request().payload, ..claimed_by(OUR_OWNER) };
    let (item, payload) = parts_of(&claimed);
    for failures in [1, 11, 12] {
        let claim = update_accepted(Some(item.clone())).0;
        let (count, payload) = (Mutex::new(0), payload.clone());
        let part = mock!(Client::get_item)
            .sequence()
            .http_response(move || {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count <= failures {
                    return error_answer(500, "InternalServerError", "ours");
                }
                http(200, &json_value!({"Item": wire_item(&payload)}))
            })
            .repeatedly()
            .build();
        let queue = queue_of([&claim, &part], QueueSettings::default());
        match queue
            .claim(&key(), OUR_OWNER, Runner::Worker, NOW, NOW + Duration::from_secs(60))
            .await
            .unwrap()
        {
            Claimed::Won(won, _) => assert!(
                failures < 12 && *won == claimed,
                "the whole request is returned after {failures} failed calls"
            ),
            Claimed::Unreachable(_, error) => {
                // Four reads by the queue, with three SDK attempts each.
                assert_eq!((failures, error.kind()), (12, StoreErrorKind::Unavailable));
            }
            other @ (Claimed::NotPending(_)
            | Claimed::ForWorker
            | Claimed::Missing
            | Claimed::Unreadable(..)) => {
                panic!("the claim succeeds, but returned {other:?}")
            }
        }
    }
}

#[tokio::test]
async fn large_result_is_stored_before_the_terminal_write_names_its_part_item() {
    let stored = Arc::new(Mutex::new(false));
    let (put_stored, update_stored) = (Arc::clone(&stored), Arc::clone(&stored));
    let put = mock!(Client::put_item).then_compute_output(move |put: &PutItemInput| {
        *put_stored.lock().unwrap() = true;
        let expiry = NOW + Duration::from_hours(9 * 24);
        let result = big_request().payload.to_string();
        assert_eq!(put.item(), Some(&part_item::encode(&key(), "result#2", result, Some(expiry.as_secs()))));
        PutItemOutput::builder().build()
    });
    let update = mock!(Client::update_item).then_compute_output(move |update: &UpdateItemInput| {
        assert!(*update_stored.lock().unwrap(), "the part item is stored before the update that names it");
        assert_eq!(update.expression_attribute_names().unwrap()["#outcome"], "result_part");
        assert_eq!(update.expression_attribute_values().unwrap()[":outcome"], s("result#2"));
        UpdateItemOutput::builder().set_attributes(with_subscribers(&["c1"])).build()
    });
    let queue = queue_of([&put, &update], QueueSettings::default());
    let audience = queue.complete(&key(), &lease(), &big_request().payload, &last()).await.unwrap();
    assert_eq!(audience, terminal_audience(&["c1"]));
}

/// A request with a large payload leaves the timer index only after the payload's part item has its time to live.
#[tokio::test]
async fn payload_part_item_gets_its_ttl_before_the_timer_is_cleared() {
    let (mut item, _) = parts_of(&Request { status: Status::Completed, epoch: 2, ..big_request() });
    item.insert("ttl".to_owned(), n(1_000));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    let rule = mock!(Client::update_item)
        .match_requests(move |update: &UpdateItemInput| {
            kept.lock().unwrap().push(text_of_update(update));
            true
        })
        .sequence()
        .http_response(move || condition_failed(Some(&item)))
        .http_response(|| http(200, &json_value!({})))
        .http_response(|| http(200, &json_value!({})))
        .build();
    queue(&rule)
        .record_delivery(&key(), lease().epoch, delivered_to(&["c1".into(), "c2".into()], true))
        .await
        .unwrap();
    let mut sent = sent.lock().unwrap().clone();
    sent.dedup();
    insta::assert_snapshot!(sent.join("\n\n"));
}

/// With `part_ttls_set` set, `record_delivery` succeeds at its first update.
#[tokio::test]
async fn payload_part_item_gets_its_ttl_right_after_the_terminal_write() {
    let (mut item, _) = parts_of(&Request { status: Status::Completed, epoch: 2, ..big_request() });
    item.insert("ttl".to_owned(), n(1_000));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    let rule = mock!(Client::update_item)
        .match_requests(move |update: &UpdateItemInput| {
            kept.lock().unwrap().push(text_of_update(update));
            true
        })
        .sequence()
        .http_response(move || http(200, &json_value!({"Attributes": wire_item(&item)})))
        .http_response(|| http(200, &json_value!({})))
        .http_response(|| http(200, &json_value!({})))
        .build();
    let queue = queue(&rule);
    let audience = queue.complete(&key(), &lease(), &json_value!(1), &last()).await.unwrap();
    assert_eq!(audience, Audience { part_ttls_set: true, ..audience_seeing(0, &["c1", "c2"]) });
    let delivered: Vec<_> =
        audience.subscribers.into_iter().map(|subscriber| subscriber.connection).collect();
    let delivery = Delivery { part_ttls_set: audience.part_ttls_set, ..delivered_to(&delivered, true) };
    queue.record_delivery(&key(), 2, delivery).await.unwrap();
    let mut sent = sent.lock().unwrap().clone();
    sent.dedup();
    insta::assert_snapshot!(sent.join("\n\n"));
}

/// Delivery of the terminal frame does not wait for the payload's time to live, because `record_delivery` sets it
/// later.
#[tokio::test(start_paused = true)]
async fn failed_or_slow_ttl_write_of_a_part_item_does_not_delay_delivery() {
    for failing in [true, false] {
        let (mut item, _) = parts_of(&Request { status: Status::Cancelled, epoch: 2, ..big_request() });
        item.insert("ttl".to_owned(), n(1_000));
        let terminal = mock!(Client::update_item)
            .match_requests(|update: &UpdateItemInput| update.key() == Some(&request_item::key(&key())))
            .then_http_response(move || http(200, &json_value!({"Attributes": wire_item(&item)})));
        let release = mock!(Client::update_item).match_requests(|update: &UpdateItemInput| {
            update.key() == Some(&part_item::key(&key(), "payload"))
        });
        let release = if failing {
            release.then_http_response(|| error_answer(400, "AccessDeniedException", "no right"))
        } else {
            release.sequence().http_response(|| error_answer(500, "X", "down")).repeatedly().build()
        };
        let queue = queue_of([&terminal, &release], QueueSettings::default());
        let began = tokio::time::Instant::now();
        let audience = queue.confirm_cancel(&key(), &lease(), &last()).await.unwrap();
        assert_eq!(audience, audience_seeing(0, &["c1", "c2"]));
        assert!(
            began.elapsed() <= Duration::from_millis(500),
            "the terminal write returns within 500 ms; this write took {:?}",
            began.elapsed()
        );
        let Cancelled::Now { epoch, part_ttls_set, .. } = queue.cancel(&key(), NOW).await.unwrap() else {
            panic!("the mocked update cancels the request");
        };
        assert_eq!((epoch, part_ttls_set), (2, false));
    }
}
