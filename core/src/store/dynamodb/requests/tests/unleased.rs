//! Tests of writes that need no lease while the request changes concurrently, and of the updates that renew or
//! release a lease.

use super::*;
use crate::store::{Cancelled, NewStatus};

/// Answers the updates of an operation in this order. The test fails if the operation sends more updates.
fn answered_in_turn(answers: Vec<HttpAnswer>) -> Rule {
    let mut sequence = mock!(Client::update_item).sequence();
    for answer in answers {
        sequence = sequence.http_response(move || match &answer {
            HttpAnswer::Accepted(item) => http(200, &json_value!({"Attributes": wire_item(item)})),
            HttpAnswer::Refused(item) => condition_failed(Some(item)),
        });
    }
    sequence.build()
}

enum HttpAnswer {
    Accepted(Item),
    Refused(Item),
}

fn item_with(status: Status) -> Item {
    item_of(&Request { status, ..request() })
}

#[tokio::test]
async fn cancel_retries_when_the_request_changes_status_concurrently() {
    use HttpAnswer::{Accepted, Refused};
    let completed = released_by(OTHER_OWNER, Status::Completed);
    for (answers, outcome) in [
        (vec![Refused(item_with(Status::Processing)), Accepted(Item::new())], Cancelled::Requested),
        // The attempt releases its lease between the first and the second update.
        (
            vec![
                Refused(item_with(Status::Processing)),
                Refused(item_with(Status::Retrying)),
                Accepted(item_with(Status::Cancelled)),
            ],
            cancelled_now(),
        ),
        // The request completes between the first and the second update.
        (
            vec![Refused(item_with(Status::Processing)), Refused(completed.clone()), Refused(completed)],
            Cancelled::Ended(Status::Completed),
        ),
        // A different caller has cancelled the request, at a different time.
        (vec![Refused(item_with(Status::Cancelled))], Cancelled::Ended(Status::Cancelled)),
    ] {
        let calls = answers.len();
        let rule = answered_in_turn(answers);
        assert_eq!(queue(&rule).cancel(&key(), NOW).await.unwrap(), outcome);
        assert_eq!(rule.num_calls(), calls);
    }
}

/// A connection other than `c1` subscribes before the first update, or between two updates.
#[tokio::test]
async fn cancel_unless_subscribed_detects_a_concurrent_subscriber() {
    use HttpAnswer::Refused;
    let refused_with = |status, subscribers: &[&str]| {
        let subscribers = subscribers.iter().map(|id| ConnectionId::from(*id)).collect();
        Refused(item_of(&Request { status, subscribers, ..request() }))
    };
    for answers in [
        vec![refused_with(Status::Pending, &["c1", "c2"])],
        vec![refused_with(Status::Processing, &["c2"])],
        vec![
            refused_with(Status::Processing, &["c1"]),
            refused_with(Status::Processing, &["c1", "c2"]),
            refused_with(Status::Processing, &["c1", "c2"]),
        ],
    ] {
        let calls = answers.len();
        let rule = answered_in_turn(answers);
        let cancelled = queue(&rule).cancel_unless_subscribed(&key(), &"c1".into(), NOW).await.unwrap();
        assert_eq!(cancelled, Cancelled::HasOtherSubscribers);
        assert_eq!(rule.num_calls(), calls);
    }
}

#[tokio::test]
async fn cancel_fails_with_condition_lost_after_four_refused_updates() {
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(|| condition_failed(Some(&item_with(Status::Retrying))))
        .repeatedly()
        .build();
    let error = queue(&rule).cancel(&key(), NOW).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ConditionLost);
    assert_eq!(rule.num_calls(), 4);
}

#[tokio::test]
async fn updates_that_cancel_unsubscribe_or_set_a_status_have_the_expected_expressions() {
    let mut report = Vec::new();
    let sent_by = async |operation: &str| {
        let (rule, sent) = update_accepted(Some(item_of(&request())));
        let queue = queue(&rule);
        let set = async |from, to| queue.update_status(&key(), from, to, NOW).await.unwrap();
        match operation {
            "cancel" => drop(queue.cancel(&key(), NOW).await.unwrap()),
            "cancel_unless_subscribed" => {
                drop(queue.cancel_unless_subscribed(&key(), &"c1".into(), NOW).await.unwrap())
            }
            "unsubscribe" => queue.unsubscribe(&key(), &"c1".into()).await.unwrap(),
            "pending" => set(Status::Retrying, NewStatus::Pending).await,
            _ => set(Status::Pending, NewStatus::Failed(ErrorBody::new(ErrorCode::Timeout, "m"))).await,
        }
        sent.lock().unwrap().clone()
    };
    for operation in ["cancel", "cancel_unless_subscribed", "unsubscribe", "pending", "failed"] {
        report.push(format!("{operation}\n{}", sent_by(operation).await));
    }
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn status_change_that_needs_a_lease_is_refused_without_a_call() {
    let (rule, _) = update_accepted(None);
    let error = queue(&rule).update_status(&key(), Status::Processing, NewStatus::Cancelled, NOW).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    let expected = "update the status of request acme/ann/r1 in table requests: \
                cannot change from PROCESSING to CANCELLED without the lease";
    assert!(
        error.to_string().contains(expected),
        "the error names the request, the table and both statuses: {error}"
    );
    assert_eq!(rule.num_calls(), 0);
}

#[tokio::test]
async fn renew_retry_and_confirm_cancel_updates_have_the_expected_expressions() {
    let mut report = Vec::new();
    let (rule, sent) = update_accepted(with_subscribers(&["c1"]));
    assert_eq!(queue(&rule).renew(&key(), &lease(), NOW).await.unwrap(), audience_of(&["c1"]));
    report.push(sent.lock().unwrap().clone());
    let (rule, sent) = update_accepted(with_subscribers(&["c1"]));
    let retry = queue(&rule);
    retry.retry_later(&key(), &lease(), &[past(2)], NOW, Runner::Processor, &last()).await.unwrap();
    report.push(sent.lock().unwrap().clone());
    let (rule, sent) = update_accepted(with_subscribers(&["c1"]));
    queue(&rule).confirm_cancel(&key(), &lease(), &last()).await.unwrap();
    report.push(sent.lock().unwrap().clone());
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn writes_of_the_lease_holder_report_a_requested_cancel() {
    let mut attributes = with_subscribers(&["c1"]).unwrap();
    attributes.insert("cancel_requested".to_owned(), AttributeValue::Bool(true));
    let (rule, _) = update_accepted(Some(attributes));
    assert!(report(&rule).await.unwrap().cancel_requested);
    let mut requested = item_of(&claimed_by(OUR_OWNER));
    requested.insert("cancel_requested".to_owned(), AttributeValue::Bool(true));
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(move || condition_failed(Some(&requested)))
        .repeatedly()
        .build();
    let queue = queue(&rule);
    let retried = queue.retry_later(&key(), &lease(), &[past(2)], NOW, Runner::Processor, &last()).await;
    assert_eq!(retried.unwrap_err().kind(), StoreErrorKind::ConditionLost);
    let continued = queue.continue_later(&key(), &lease(), &last()).await;
    assert_eq!(continued.unwrap_err().kind(), StoreErrorKind::ConditionLost);
}
