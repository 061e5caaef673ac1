//! The sweeper's writes to due requests: `nudge`, `postpone`, `reclaim` and `update_status`.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use streamer::ids::RequestKey;
use streamer::protocol::{ErrorBody, ErrorCode, Seq};
use streamer::store::{
    AttemptOutcome, Cancelled, Claimed, Delivery, Ending, Lease, NewStatus, PastAttempt, ReadRequests as _,
    ReclaimVerdict, Request, RunRequests as _, Runner, Status, StoreErrorKind, SubmitRequests as _,
    SubscribeToRequests as _, SweepRequests as _,
};

use super::{Store, at, delivered_to, ids, last, number, out_of_paper, past, request};

/// Returns the history entry of a first attempt whose process crashed at `seconds`.
fn crash(seconds: u64) -> PastAttempt {
    PastAttempt { outcome: AttemptOutcome::Crashed, ..past(1, seconds) }
}

fn crashed_too_often() -> ErrorBody {
    ErrorBody::new(ErrorCode::ProcessingFailed, "The process of every attempt crashed")
}

/// Returns one verdict of each kind about a request whose lease has expired.
fn verdicts() -> [ReclaimVerdict; 3] {
    [ReclaimVerdict::Rerun, ReclaimVerdict::Failed(crashed_too_often()), ReclaimVerdict::Cancelled]
}

/// Claims a new request. Also requests its cancel if the verdict is `Cancelled`, because the store accepts
/// that verdict only after a cancel request.
async fn abandoned(store: &Store, id: &str, verdict: &ReclaimVerdict) -> (RequestKey, Lease) {
    let (key, lease) = store.claimed(id).await;
    if *verdict == ReclaimVerdict::Cancelled {
        assert_eq!(store.queue.cancel(&key, at(2)).await.unwrap(), Cancelled::Requested);
    }
    (key, lease)
}

async fn timer_at(store: &Store, key: &RequestKey) -> Option<AttributeValue> {
    store.item(key).await.get("timer_at").cloned()
}

/// Returns the attribute value of a timer that fires at `seconds`.
fn millis(seconds: u64) -> AttributeValue {
    number(at(seconds).as_millis())
}

#[tokio::test]
async fn pending_request_is_nudged_once_each_time_its_timer_fires() {
    let store = Store::new().await;
    for (id, runner, first, next) in [("r1", Runner::Processor, 60, 120), ("r2", Runner::Worker, 150, 210)] {
        let request = Request { runner, ..request(id) };
        store.queue.enqueue(&request).await.unwrap();
        let (key, seen) = (request.key(), store.seen(&request.key()).await);
        assert_eq!(seen.timer_at, Some(at(first)));
        assert!(store.queue.nudge(&seen, at(60)).await.unwrap());
        let item = store.item(&key).await;
        assert_eq!((&item["nudges"], &item["timer_at"]), (&number(1), &millis(next)));
        assert_eq!(store.get(&key).await, request, "a nudge changes only the timer and the nudge count");
        // The nudge of a second sweeper fails, because its summary was read before the first nudge.
        assert!(!store.queue.nudge(&seen, at(61)).await.unwrap());
        assert_eq!(store.item(&key).await, item);
        let seen = store.seen(&key).await;
        assert!(store.queue.nudge(&seen, at(next)).await.unwrap());
        assert_eq!(store.item(&key).await["nudges"], number(2));
    }
}

#[tokio::test]
async fn claimed_or_missing_request_is_not_nudged() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let seen = store.seen(&key).await;
    store.claim(&key, "first", 1).await;
    let running = store.item(&key).await;
    assert!(!store.queue.nudge(&seen, at(60)).await.unwrap());
    assert!(!store.queue.nudge(&store.seen(&key).await, at(60)).await.unwrap());
    assert_eq!(store.item(&key).await, running);
    let absent = Request { id: "r2".into(), ..request("r2") };
    let mut missing = seen;
    missing.id = absent.id.clone();
    assert!(!store.queue.nudge(&missing, at(60)).await.unwrap());
    assert_eq!(store.queue.get(&absent.key()).await.unwrap(), None);
}

#[tokio::test]
async fn timer_is_postponed_only_if_it_still_has_the_expected_time() {
    let store = Store::new().await;
    let (key, _) = store.claimed("r1").await;
    let before = store.get(&key).await;
    assert!(store.queue.postpone(&key, at(71), at(100)).await.unwrap());
    assert_eq!(timer_at(&store, &key).await, Some(millis(100)));
    assert_eq!(store.get(&key).await, before);
    assert!(!store.queue.postpone(&key, at(71), at(200)).await.unwrap());
    // A repeated postponement to the same time succeeds, because a caller repeats a write whose response was
    // lost.
    assert!(store.queue.postpone(&key, at(71), at(100)).await.unwrap());
    assert_eq!(timer_at(&store, &key).await, Some(millis(100)));
    let absent = RequestKey::from_stored("acme/ann/r9");
    assert!(!store.queue.postpone(&absent, at(71), at(100)).await.unwrap());
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}

/// The delivery of the terminal frame has cleared the timer.
#[tokio::test]
async fn postponement_does_not_set_the_timer_of_a_delivered_request() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    store.queue.complete(&key, &lease, &json!(1), &last(1, 2)).await.unwrap();
    store.queue.record_delivery(&key, 1, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert!(!store.queue.postpone(&key, at(32), at(100)).await.unwrap());
    assert!(!store.is_in_timers(&key).await);
}

#[tokio::test]
async fn reclaimed_request_becomes_pending_and_can_be_claimed_only_by_the_worker() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let before = store.get(&key).await;
    let seen = store.seen(&key).await;
    assert!(store.queue.reclaim(&seen, &ReclaimVerdict::Rerun, &[crash(71)], at(71)).await.unwrap());
    let expected = Request {
        status: Status::Pending,
        runner: Runner::Worker,
        lease: None,
        history: vec![crash(71)],
        seq: Seq::start_of(2),
        ..before
    };
    assert_eq!(store.get(&key).await, expected);
    assert_eq!(timer_at(&store, &key).await, Some(millis(71 + 150)));
    assert!(!store.item(&key).await.contains_key("owner"));
    let refused = store.try_claim(&key, "processor", Runner::Processor, 72).await;
    assert!(matches!(refused, Claimed::ForWorker), "{refused:?}");
    // Not even the owner token of the lost lease lets the processor claim the request, which only the worker
    // may claim now.
    let again = store.try_claim(&key, &lease.owner, Runner::Processor, 72).await;
    assert!(matches!(again, Claimed::ForWorker), "{again:?}");
    let second = store.claim(&key, "worker", 73).await;
    assert_eq!((second.epoch, store.get(&key).await.attempt), (2, 2));
}

#[tokio::test]
async fn request_reclaimed_as_failed_or_cancelled_is_terminal_with_a_delivery_timer() {
    let store = Store::new().await;
    for (id, verdict) in
        [("r1", ReclaimVerdict::Failed(crashed_too_often())), ("r2", ReclaimVerdict::Cancelled)]
    {
        let (key, _) = abandoned(&store, id, &verdict).await;
        let before = store.get(&key).await;
        let seen = store.seen(&key).await;
        assert!(store.queue.reclaim(&seen, &verdict, &[crash(71)], at(71)).await.unwrap());
        let is_failed = id == "r1";
        let ending = if is_failed { Ending::Failed(crashed_too_often()) } else { Ending::Cancelled };
        let expected = Request {
            status: ending.status(),
            ending: Some(ending),
            lease: None,
            cancel_requested: false,
            history: vec![crash(71)],
            is_dead_letter_due: is_failed,
            seq: Seq::start_of(2).next(),
            finished_at: Some(at(71)),
            ..before
        };
        assert_eq!(store.get(&key).await, expected);
        assert_eq!(timer_at(&store, &key).await, Some(millis(71 + 30)));
        assert!(store.item(&key).await.contains_key("ttl"));
        // One write records the delivery to c1 and, for the failed request, the sent dead letter.
        let c1 = ids(&["c1"]);
        let delivery = Delivery { is_dead_letter_sent: is_failed, ..delivered_to(&c1, true) };
        store.queue.record_delivery(&key, 1, delivery).await.unwrap();
        assert!(!store.is_in_timers(&key).await);
        assert!(!store.get(&key).await.is_dead_letter_due);
    }
}

/// Invariant 3 (a fenced attempt changes nothing). The attempt does not know yet that it has lost the lease.
#[tokio::test]
async fn every_write_of_an_attempt_whose_request_was_reclaimed_is_fenced() {
    let store = Store::new().await;
    for (n, verdict) in verdicts().into_iter().enumerate() {
        let (key, lease) = abandoned(&store, &format!("r{n}"), &verdict).await;
        let seen = store.seen(&key).await;
        assert!(store.queue.reclaim(&seen, &verdict, &[crash(71)], at(71)).await.unwrap());
        let reclaimed = store.item(&key).await;
        let (queue, last, error) = (&store.queue, last(1, 72), out_of_paper());
        let (half, seq) = (&last.progress, last.seq);
        let big = json!("x".repeat(5_000));
        for (name, written) in [
            ("renew", queue.renew(&key, &lease, at(130)).await),
            ("progress", queue.progress(&key, &lease, half, seq, at(130)).await),
            ("checkpoint", queue.checkpoint(&key, &lease, &json!(7), half, seq, at(130)).await),
            ("complete", queue.complete(&key, &lease, &json!(1), &last).await),
            ("complete, big", queue.complete(&key, &lease, &big, &last).await),
            ("fail", queue.fail(&key, &lease, &error, &[past(1, 72)], &last).await),
            ("confirm_cancel", queue.confirm_cancel(&key, &lease, &last).await),
            ("retry", queue.retry_later(&key, &lease, &[], at(90), Runner::Processor, &last).await),
            ("continue", queue.continue_later(&key, &lease, &last).await),
        ] {
            assert_eq!(written.unwrap_err().kind(), StoreErrorKind::Fenced, "{name} after {verdict:?}");
            assert_eq!(store.item(&key).await, reclaimed, "{name} after {verdict:?}");
        }
    }
}

#[tokio::test]
async fn of_two_concurrent_reclaims_exactly_one_succeeds() {
    let store = Store::new().await;
    for (n, verdict) in verdicts().into_iter().enumerate() {
        let (key, _) = abandoned(&store, &format!("r{n}"), &verdict).await;
        let seen = store.seen(&key).await;
        let take = |seconds| {
            let (queue, seen, verdict) = (&store.queue, &seen, &verdict);
            async move { queue.reclaim(seen, verdict, &[crash(seconds)], at(seconds)).await.unwrap() }
        };
        let taken = tokio::join!(take(71), take(72));
        assert!(taken.0 != taken.1, "{verdict:?}: {taken:?}");
        let history = store.get(&key).await.history;
        assert_eq!(history, [crash(if taken.0 { 71 } else { 72 })], "{verdict:?}");
    }
}

#[tokio::test]
async fn of_two_concurrent_nudges_exactly_one_succeeds() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let seen = store.seen(&key).await;
    let nudged = tokio::join!(store.queue.nudge(&seen, at(60)), store.queue.nudge(&seen, at(61)));
    assert!(nudged.0.unwrap() != nudged.1.unwrap());
    assert_eq!(store.item(&key).await["nudges"], number(1));
}

#[tokio::test]
async fn request_that_changed_since_the_sweeper_read_it_is_not_reclaimed() {
    let store = Store::new().await;
    for verdict in [ReclaimVerdict::Rerun, ReclaimVerdict::Failed(crashed_too_often())] {
        for (n, change) in
            ["renewed", "completed", "retried and claimed", "cancel requested"].into_iter().enumerate()
        {
            let (key, lease) = store.claimed(&format!("r{n}-{}", verdict == ReclaimVerdict::Rerun)).await;
            let seen = store.seen(&key).await;
            match change {
                "renewed" => drop(store.queue.renew(&key, &lease, at(90)).await.unwrap()),
                "completed" => {
                    store.queue.complete(&key, &lease, &json!(1), &last(1, 2)).await.unwrap();
                }
                "cancel requested" => drop(store.queue.cancel(&key, at(3)).await.unwrap()),
                _ => {
                    let runner = Runner::Processor;
                    store.queue.retry_later(&key, &lease, &[], at(3), runner, &last(1, 2)).await.unwrap();
                    store.claim(&key, "second", 3).await;
                }
            }
            let before = store.item(&key).await;
            assert!(!store.queue.reclaim(&seen, &verdict, &[], at(71)).await.unwrap(), "{change}");
            assert_eq!(store.item(&key).await, before, "{change}");
        }
    }
    // The store refuses the verdict `Cancelled` if no cancel was requested.
    let (key, _) = store.claimed("no cancel requested").await;
    let (seen, before) = (store.seen(&key).await, store.item(&key).await);
    assert!(!store.queue.reclaim(&seen, &ReclaimVerdict::Cancelled, &[], at(71)).await.unwrap());
    assert_eq!(store.item(&key).await, before);
}

#[tokio::test]
async fn reclaim_of_a_request_without_a_lease_is_a_misuse_error() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let before = store.item(&key).await;
    let seen = store.seen(&key).await;
    let error = store.queue.reclaim(&seen, &ReclaimVerdict::Rerun, &[], at(71)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    assert_eq!(store.item(&key).await, before);
}

/// A slow sweeper may write long after it has read a due item. In the meantime, the next attempt may have run
/// and failed. The late write must not make the request pending before the new due time.
#[tokio::test]
async fn retrying_request_does_not_become_pending_before_its_next_attempt_is_due() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let retry = async |lease: &Lease, due| {
        let (last, runner) = (last(lease.epoch, due - 5), Runner::Processor);
        store.queue.retry_later(&key, lease, &[], at(due), runner, &last).await.unwrap();
    };
    retry(&lease, 10).await;
    let again = async |seconds| {
        store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(seconds)).await
    };
    let early = again(9).await.unwrap_err();
    assert_eq!(early.kind(), StoreErrorKind::ConditionLost);
    assert!(early.to_string().ends_with("the next attempt is not due"), "{early}");
    again(10).await.unwrap();
    let second = store.claim(&key, "second", 11).await;
    retry(&second, 60).await;
    assert_eq!(again(12).await.unwrap_err().kind(), StoreErrorKind::ConditionLost);
    assert_eq!(store.get(&key).await.status, Status::Retrying);
}

#[tokio::test]
async fn retrying_request_is_claimed_only_when_due_and_only_by_its_assigned_runner() {
    let store = Store::new().await;
    for (id, runner) in [("r1", Runner::Processor), ("r2", Runner::Worker)] {
        let (key, lease) = store.claimed(id).await;
        store.queue.retry_later(&key, &lease, &[past(1, 2)], at(10), runner, &last(1, 2)).await.unwrap();
        assert_eq!(store.get(&key).await.runner, runner);
        for claimant in [Runner::Processor, Runner::Worker] {
            let early = store.try_claim(&key, "early", claimant, 9).await;
            assert!(matches!(early, Claimed::NotPending(Status::Retrying)), "{early:?}");
        }
        if runner == Runner::Worker {
            let refused = store.try_claim(&key, "processor", Runner::Processor, 10).await;
            assert!(matches!(refused, Claimed::ForWorker), "{refused:?}");
        }
        let won = store.try_claim(&key, "second", runner, 10).await;
        let Claimed::Won(won, lease) = won else { panic!("{won:?}") };
        assert_eq!((won.attempt, lease.epoch), (2, 2));
        assert_eq!(won.history, [past(1, 2)]);
    }
    // A request that has used all its attempts cannot be claimed.
    let only = Request { max_attempts: 1, ..request("r3") };
    store.queue.enqueue(&only).await.unwrap();
    let (lease, last) = (store.claim(&only.key(), "first", 1).await, last(1, 2));
    store.queue.retry_later(&only.key(), &lease, &[], at(10), Runner::Worker, &last).await.unwrap();
    for claimant in [Runner::Processor, Runner::Worker] {
        let spent = store.try_claim(&only.key(), "second", claimant, 20).await;
        assert!(matches!(spent, Claimed::NotPending(Status::Retrying)), "{spent:?}");
    }
}

/// A failed request stays in the timer index until its dead letter is sent, even if it has no subscriber.
#[tokio::test]
async fn failed_request_stays_in_the_timer_index_until_its_dead_letter_is_sent() {
    let store = Store::new().await;
    let failed = async |id: &str| {
        let (key, lease) = store.claimed(id).await;
        store.queue.fail(&key, &lease, &out_of_paper(), &[past(1, 2)], &last(1, 2)).await.unwrap();
        key
    };
    let c1 = ids(&["c1"]);
    let sent =
        |reached, is_complete| Delivery { is_dead_letter_sent: true, ..delivered_to(reached, is_complete) };
    let key = failed("delivered first").await;
    store.queue.record_delivery(&key, 1, delivered_to(&c1, true)).await.unwrap();
    let request = store.get(&key).await;
    assert!(request.is_dead_letter_due && request.subscribers.is_empty() && store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, 1, sent(&[], true)).await.unwrap();
    assert!(!store.get(&key).await.is_dead_letter_due && !store.is_in_timers(&key).await);

    let key = failed("dead letter sent first").await;
    store.queue.record_delivery(&key, 1, sent(&[], false)).await.unwrap();
    assert!(!store.get(&key).await.is_dead_letter_due && store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, 1, delivered_to(&c1, true)).await.unwrap();
    assert!(!store.is_in_timers(&key).await);

    let key = failed("last subscriber leaves").await;
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let request = store.get(&key).await;
    assert!(request.is_dead_letter_due && request.subscribers.is_empty() && store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, 1, sent(&[], true)).await.unwrap();
    assert!(!store.is_in_timers(&key).await);

    // `update_status` to FAILED also makes a dead letter due.
    let key = store.enqueue("never run", 0).await;
    let failed = NewStatus::Failed(out_of_paper());
    store.queue.update_status(&key, Status::Pending, failed, at(5)).await.unwrap();
    assert!(store.get(&key).await.is_dead_letter_due);
}

#[tokio::test]
async fn redrive_is_recorded_only_on_a_failed_request() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let early = store.queue.record_redrive(&key, 1, &"r2".into()).await.unwrap_err();
    assert_eq!(early.kind(), StoreErrorKind::NotFound);
    store.queue.fail(&key, &lease, &out_of_paper(), &[], &last(1, 2)).await.unwrap();
    for _ in 0..2 {
        store.queue.record_redrive(&key, 1, &"r2".into()).await.unwrap();
        assert_eq!(store.get(&key).await.redriven_as, Some("r2".into()));
    }
    let absent = RequestKey::from_stored("acme/ann/r9");
    let error = store.queue.record_redrive(&absent, 1, &"r2".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
}
