//! Writes that need no lease, when the request changes meanwhile.

use super::*;
use crate::store::{Cancelled, NewStatus};

/// Answers the updates of an operation one after the other; more than these are a failure.
fn answered_in_turn(answers: Vec<HttpAnswer>) -> Rule {
    let mut sequence = mock!(Client::update_item).sequence();
    for answer in answers {
        sequence = sequence.http_response(move || match &answer {
            HttpAnswer::Taken(item) => http(200, &json_value!({"Attributes": wire_item(item)})),
            HttpAnswer::Refused(item) => condition_failed(Some(item)),
        });
    }
    sequence.build()
}

enum HttpAnswer {
    Taken(Item),
    Refused(Item),
}

fn stands(status: Status) -> Item {
    item_of(&Request { status, ..request() })
}

#[tokio::test]
async fn a_cancellation_follows_a_request_that_moves_on() {
    use HttpAnswer::{Refused, Taken};
    let ended = ended_by(THEIRS, Status::Completed);
    for (answers, outcome) in [
        (vec![Refused(stands(Status::Processing)), Taken(Item::new())], Cancelled::Requested),
        // It gave its lease back between the two.
        (
            vec![
                Refused(stands(Status::Processing)),
                Refused(stands(Status::Retrying)),
                Taken(stands(Status::Cancelled)),
            ],
            cancelled_now(),
        ),
        // It ended between the two.
        (
            vec![Refused(stands(Status::Processing)), Refused(ended.clone()), Refused(ended)],
            Cancelled::Ended(Status::Completed),
        ),
        // Somebody else cancelled it, at another time.
        (vec![Refused(stands(Status::Cancelled))], Cancelled::Ended(Status::Cancelled)),
    ] {
        let calls = answers.len();
        let rule = answered_in_turn(answers);
        assert_eq!(queue(&rule).cancel(&key(), NOW).await.unwrap(), outcome);
        assert_eq!(rule.num_calls(), calls);
    }
}

/// Somebody comes to listen between one write and the next.
#[tokio::test]
async fn a_cancellation_for_one_connection_spares_whom_another_listens_to_meanwhile() {
    use HttpAnswer::Refused;
    let heard_by = |status, subscribers: &[&str]| {
        let subscribers = subscribers.iter().map(|id| ConnectionId::from(*id)).collect();
        Refused(item_of(&Request { status, subscribers, ..request() }))
    };
    for answers in [
        vec![heard_by(Status::Pending, &["c1", "c2"])],
        vec![heard_by(Status::Processing, &["c2"])],
        vec![
            heard_by(Status::Processing, &["c1"]),
            heard_by(Status::Processing, &["c1", "c2"]),
            heard_by(Status::Processing, &["c1", "c2"]),
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
async fn a_cancellation_gives_up_on_a_request_that_never_holds_still() {
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(|| condition_failed(Some(&stands(Status::Retrying))))
        .repeatedly()
        .build();
    let error = queue(&rule).cancel(&key(), NOW).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ConditionLost);
    assert_eq!(rule.num_calls(), 4);
}

#[tokio::test]
async fn what_a_cancellation_and_a_change_of_status_send() {
    let mut report = Vec::new();
    let sent_by = async |operation: &str| {
        let (rule, sent) = update_taken(Some(item_of(&request())));
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
async fn a_change_that_no_lease_is_needed_for_and_that_is_none_makes_no_call() {
    let (rule, _) = update_taken(None);
    let error = queue(&rule).update_status(&key(), Status::Processing, NewStatus::Cancelled, NOW).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    let said = "update the status of request acme/ann/r1 in table requests: \
                from PROCESSING to CANCELLED without its lease";
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(rule.num_calls(), 0);
}

#[tokio::test]
async fn what_a_renewal_and_a_retry_send() {
    let mut report = Vec::new();
    let (rule, sent) = update_taken(with_subscribers(&["c1"]));
    assert_eq!(queue(&rule).renew(&key(), &lease(), NOW).await.unwrap(), audience_of(&["c1"]));
    report.push(sent.lock().unwrap().clone());
    let (rule, sent) = update_taken(with_subscribers(&["c1"]));
    let retry = queue(&rule);
    retry.retry_later(&key(), &lease(), &[past(2)], NOW, Runner::Processor, &last()).await.unwrap();
    report.push(sent.lock().unwrap().clone());
    let (rule, sent) = update_taken(with_subscribers(&["c1"]));
    queue(&rule).confirm_cancel(&key(), &lease(), &last()).await.unwrap();
    report.push(sent.lock().unwrap().clone());
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn whoever_holds_the_lease_learns_that_its_end_is_asked_for() {
    let mut attributes = with_subscribers(&["c1"]).unwrap();
    attributes.insert("cancel_requested".to_owned(), AttributeValue::Bool(true));
    let (rule, _) = update_taken(Some(attributes));
    assert!(report(&rule).await.unwrap().cancel_requested);
    let mut asked = item_of(&claimed_by(OURS));
    asked.insert("cancel_requested".to_owned(), AttributeValue::Bool(true));
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(move || condition_failed(Some(&asked)))
        .repeatedly()
        .build();
    let queue = queue(&rule);
    let retried = queue.retry_later(&key(), &lease(), &[past(2)], NOW, Runner::Processor, &last()).await;
    assert_eq!(retried.unwrap_err().kind(), StoreErrorKind::ConditionLost);
    let continued = queue.continue_later(&key(), &lease(), &last()).await;
    assert_eq!(continued.unwrap_err().kind(), StoreErrorKind::ConditionLost);
}
