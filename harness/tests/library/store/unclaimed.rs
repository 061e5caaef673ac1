//! Writes to a request that a caller without a lease may make: cancel, change the status, and unsubscribe.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use streamer::ids::RequestKey;
use streamer::protocol::{ErrorBody, ErrorCode, Seq};
use streamer::store::dynamodb::QueueSettings;
use streamer::store::{
    Cancelled, Claimed, Ending, NewStatus, ReadRequests as _, Request, RunRequests as _, Runner, Status,
    StoreErrorKind, SubmitRequests as _, SubscribeToRequests as _, SweepRequests as _,
};

use super::{Store, at, ids, last, past, request};

fn attempts_used_up() -> ErrorBody {
    ErrorBody::new(ErrorCode::ProcessingFailed, "The request failed three times")
}

/// Enqueues a request and brings it into `status` by writes of the request queue.
async fn request_in(store: &Store, id: &str, status: Status) -> RequestKey {
    let key = store.enqueue(id, 0).await;
    if status == Status::Pending {
        return key;
    }
    let lease = store.claim(&key, "first", 1).await;
    let (queue, last) = (&store.queue, last(1, 2));
    match status {
        Status::Pending | Status::Processing => {}
        Status::Retrying => {
            queue.retry_later(&key, &lease, &[past(1, 2)], at(30), Runner::Processor, &last).await.unwrap();
        }
        Status::Completed => {
            queue.complete(&key, &lease, &json!(1), &last).await.unwrap();
        }
        Status::Failed => {
            queue.fail(&key, &lease, &attempts_used_up(), &[past(1, 2)], &last).await.unwrap();
        }
        Status::Cancelled => {
            queue.confirm_cancel(&key, &lease, &last).await.unwrap();
        }
    }
    assert_eq!(store.get(&key).await.status, status);
    key
}

#[tokio::test]
async fn request_without_a_lease_is_cancelled_immediately_and_can_no_longer_be_claimed() {
    let store = Store::new().await;
    for (id, status, seq) in
        [("r1", Status::Pending, Seq::default().next()), ("r2", Status::Retrying, Seq::start_of(2).next())]
    {
        let key = request_in(&store, id, status).await;
        let before = store.get(&key).await;
        let cancelled = store.queue.cancel(&key, at(10)).await.unwrap();
        let (subscribers, epoch) = (ids(&["c1"]), before.epoch);
        assert_eq!(cancelled, Cancelled::Now { subscribers, seq, epoch, part_ttls_set: true });
        let expected = Request {
            status: Status::Cancelled,
            ending: Some(Ending::Cancelled),
            seq,
            finished_at: Some(at(10)),
            ..before
        };
        assert_eq!(store.get(&key).await, expected);
        let item = store.item(&key).await;
        let ttl = at(10) + QueueSettings::default().ttl;
        assert_eq!(item["ttl"], AttributeValue::N(ttl.as_secs().to_string()));
        assert_eq!(item["timer_at"], AttributeValue::N(at(40).as_millis().to_string()));
        let claimed = store.try_claim(&key, "late", Runner::Worker, 11).await;
        assert!(matches!(claimed, Claimed::NotPending(Status::Cancelled)), "{claimed:?}");
    }
}

#[tokio::test]
async fn cancel_result_differs_for_running_terminal_and_missing_requests() {
    let store = Store::new().await;
    let running = request_in(&store, "r1", Status::Processing).await;
    for _ in 0..2 {
        assert_eq!(store.queue.cancel(&running, at(10)).await.unwrap(), Cancelled::Requested);
    }
    assert_eq!(store.get(&running).await.status, Status::Processing);
    for (id, status) in [("r2", Status::Completed), ("r3", Status::Failed), ("r4", Status::Cancelled)] {
        let key = request_in(&store, id, status).await;
        let before = store.item(&key).await;
        assert_eq!(store.queue.cancel(&key, at(10)).await.unwrap(), Cancelled::Ended(status));
        assert_eq!(store.item(&key).await, before, "{status:?}");
    }
    let absent = RequestKey::from_stored("acme/ann/r9");
    assert_eq!(store.queue.cancel(&absent, at(10)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}

/// Tries each combination of a current status and a [`NewStatus`].
#[tokio::test]
async fn status_change_without_a_lease_succeeds_only_from_pending_or_retrying() {
    let store = Store::new().await;
    let mut n = 0;
    for from in Status::ALL {
        for to in [NewStatus::Pending, NewStatus::Failed(attempts_used_up()), NewStatus::Cancelled] {
            n += 1;
            let key = request_in(&store, &format!("r{n}"), from).await;
            let before = store.item(&key).await;
            let changed = store.queue.update_status(&key, from, to.clone(), at(40)).await;
            let allowed = match (from, &to) {
                (Status::Retrying, NewStatus::Pending)
                | (Status::Pending | Status::Retrying, NewStatus::Failed(_) | NewStatus::Cancelled) => true,
                (Status::Pending, NewStatus::Pending)
                | (Status::Processing | Status::Completed | Status::Failed | Status::Cancelled, _) => false,
            };
            match changed {
                Ok(()) => assert!(allowed, "{from:?} to {to:?}"),
                Err(error) => {
                    assert!(!allowed, "{from:?} to {to:?}: {error}");
                    assert_eq!(error.kind(), StoreErrorKind::Misuse, "{from:?} to {to:?}");
                    assert_eq!(store.item(&key).await, before, "{from:?} to {to:?}");
                }
            }
            let expected = if allowed { to.status() } else { from };
            assert_eq!(store.get(&key).await.status, expected, "{from:?} to {to:?}");
        }
    }
}

#[tokio::test]
async fn status_change_is_refused_if_the_request_no_longer_has_the_expected_status() {
    let store = Store::new().await;
    for (n, current) in Status::ALL.into_iter().enumerate() {
        let key = request_in(&store, &format!("r{n}"), current).await;
        let before = store.item(&key).await;
        for from in [Status::Pending, Status::Retrying] {
            if from == current {
                continue;
            }
            let error =
                store.queue.update_status(&key, from, NewStatus::Cancelled, at(40)).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::ConditionLost, "expected {from:?}, stored {current:?}");
            let said = format!("status is {}, not {}", current.as_str(), from.as_str());
            assert!(error.to_string().contains(&said), "{error}");
            assert_eq!(store.item(&key).await, before);
        }
    }
    let absent = RequestKey::from_stored("acme/ann/r9");
    let change = store.queue.update_status(&absent, Status::Pending, NewStatus::Cancelled, at(40));
    assert_eq!(change.await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}

#[tokio::test]
async fn request_marked_failed_while_waiting_for_a_retry_stores_the_error() {
    let store = Store::new().await;
    let key = request_in(&store, "r1", Status::Retrying).await;
    let failed = NewStatus::Failed(attempts_used_up());
    store.queue.update_status(&key, Status::Retrying, failed, at(40)).await.unwrap();
    let request = store.get(&key).await;
    assert_eq!(request.ending, Some(Ending::Failed(attempts_used_up())));
    assert_eq!((request.finished_at, request.seq), (Some(at(40)), Seq::start_of(2).next()));
    assert!(store.is_in_timers(&key).await, "an undelivered request is in the timer index");
}

#[tokio::test]
async fn unsubscribe_removes_a_connection_from_a_request_in_any_status() {
    let store = Store::new().await;
    for (n, status) in Status::ALL.into_iter().enumerate() {
        let key = request_in(&store, &format!("r{n}"), status).await;
        store.edit(&key, "SET subscribers.c2 = :value", AttributeValue::N("1".to_owned())).await;
        let unsubscribe = async |connection: &str| {
            store.queue.unsubscribe(&key, &connection.into()).await.unwrap();
            (store.get(&key).await.subscribers, store.is_in_timers(&key).await)
        };
        assert_eq!(unsubscribe("nobody").await, (ids(&["c1", "c2"]), true), "{status:?}");
        assert_eq!(unsubscribe("c1").await, (ids(&["c2"]), true), "{status:?}");
        assert_eq!(unsubscribe("c1").await, (ids(&["c2"]), true), "{status:?}");
        // The timer of a failed request stays set, because its dead letter is due.
        let keeps_timer = !status.is_terminal() || status == Status::Failed;
        assert_eq!(unsubscribe("c2").await, (Vec::new(), keeps_timer), "{status:?}");
        assert_eq!(unsubscribe("c2").await, (Vec::new(), keeps_timer), "{status:?}");
        assert_eq!(store.get(&key).await.status, status);
    }
    let absent = RequestKey::from_stored("acme/ann/r9");
    store.queue.unsubscribe(&absent, &"c1".into()).await.unwrap();
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}

/// The last subscriber leaves before the terminal write. The request then has a timer but needs no delivery,
/// so the next unsubscribe clears the timer.
#[tokio::test]
async fn terminal_request_without_subscribers_leaves_the_timer_index_on_unsubscribe() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let cancelled = store.queue.cancel(&key, at(1)).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Now { subscribers, .. } if subscribers.is_empty()));
    assert!(store.is_in_timers(&key).await);
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    assert!(!store.is_in_timers(&key).await);
}

#[tokio::test]
async fn unsubscribe_does_not_affect_a_request_of_another_user_with_the_same_id() {
    let store = Store::new().await;
    let other = Request { user: "bob".into(), ..request("r1") };
    store.queue.enqueue(&other).await.unwrap();
    let key = store.enqueue("r1", 0).await;
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    assert_eq!(
        store.get(&other.key()).await.subscribers,
        ids(&["c1"]),
        "an unsubscribe from ann's request does not change bob's request"
    );
}

#[tokio::test]
async fn cancel_unless_subscribed_cancels_only_a_request_without_other_subscribers() {
    let store = Store::new().await;
    for (n, status) in Status::ALL.into_iter().filter(|status| !status.is_terminal()).enumerate() {
        let key = request_in(&store, &format!("r{n}"), status).await;
        let cancel = async |seconds| {
            store.queue.cancel_unless_subscribed(&key, &"c1".into(), at(seconds)).await.unwrap()
        };
        store.edit(&key, "SET subscribers.c2 = :value", AttributeValue::N("1".to_owned())).await;
        let before = store.item(&key).await;
        assert_eq!(cancel(10).await, Cancelled::HasOtherSubscribers, "{status:?}");
        store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
        assert_eq!(
            cancel(11).await,
            Cancelled::HasOtherSubscribers,
            "{status:?}: the subscriber c2 prevents the cancel"
        );
        store.edit(&key, "SET subscribers.c1 = :value", before["created_at"].clone()).await;
        store.queue.unsubscribe(&key, &"c2".into()).await.unwrap();
        let cancelled = cancel(12).await;
        if status == Status::Processing {
            assert_eq!(cancelled, Cancelled::Requested);
        } else {
            assert!(matches!(cancelled, Cancelled::Now { .. }), "{status:?}: {cancelled:?}");
            assert_eq!(cancel(13).await, Cancelled::Ended(Status::Cancelled));
        }
    }
    // A request that has no subscriber is cancelled as well.
    let key = store.enqueue("unsubscribed", 0).await;
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let cancelled = store.queue.cancel_unless_subscribed(&key, &"c1".into(), at(10)).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Now { .. }), "{cancelled:?}");
    let absent = RequestKey::from_stored("acme/ann/r9");
    let error = store.queue.cancel_unless_subscribed(&absent, &"c1".into(), at(10)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
}

#[tokio::test]
async fn request_without_attempts_left_cannot_become_pending_again() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let again = async |seconds| {
        store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(seconds)).await
    };
    for attempt in 1..=3 {
        let lease = store.claim(&key, &format!("try {attempt}"), attempt * 10).await;
        let (last, due) = (last(attempt, attempt * 10 + 1), at(attempt * 10 + 5));
        store.queue.retry_later(&key, &lease, &[], due, Runner::Processor, &last).await.unwrap();
        if attempt < 3 {
            again(attempt * 10 + 5).await.unwrap();
        }
    }
    let error = again(40).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ConditionLost);
    assert!(error.to_string().ends_with("no attempts left"), "{error}");
    let request = store.get(&key).await;
    assert_eq!((request.status, request.attempt), (Status::Retrying, request.max_attempts));
    let failed = NewStatus::Failed(attempts_used_up());
    store.queue.update_status(&key, Status::Retrying, failed, at(41)).await.unwrap();
}
