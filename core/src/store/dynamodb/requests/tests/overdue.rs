//! Tests of the updates that the sweeper, subscriptions, redrives, checkpoints and retries send.

use super::errors::seen;
use super::*;
use crate::store::{Subscribed, dynamodb::request_item};

#[tokio::test]
async fn sweep_subscribe_and_redrive_updates_have_the_expected_expressions() {
    let mut report = Vec::new();
    let cancelled = ReclaimVerdict::Cancelled;
    let failed = ReclaimVerdict::Failed(out_of_paper());
    for operation in ["nudge", "postpone", "again", "failed", "cancelled", "subscribe", "record_redrive"] {
        let (rule, sent) = update_accepted(Some(item_of(&request())));
        let (queue, running) = (queue(&rule), seen(&claimed_by(OTHER_OWNER)));
        let reclaim = async |verdict| queue.reclaim(&running, verdict, &[past(2)], NOW).await.unwrap();
        match operation {
            "nudge" => assert!(queue.nudge(&seen(&request()), NOW).await.unwrap()),
            "postpone" => {
                assert!(queue.postpone(&key(), NOW, NOW + Duration::from_secs(9)).await.unwrap());
            }
            "again" => assert!(reclaim(&ReclaimVerdict::Rerun).await),
            "failed" => assert!(reclaim(&failed).await),
            "cancelled" => assert!(reclaim(&cancelled).await),
            "subscribe" => {
                let subscribed = queue.subscribe(&key(), &"c3".into(), Seq::default(), NOW).await.unwrap();
                assert_eq!(subscribed, Subscribed::To(Box::new(request())));
            }
            _ => queue.record_redrive(&key(), 1, &"r2".into()).await.unwrap(),
        }
        report.push(format!("{operation}\n{}", sent.lock().unwrap()));
    }
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn checkpoint_continue_and_retry_updates_have_the_expected_expressions() {
    let mut report = Vec::new();
    for operation in ["checkpoint", "continue_later", "retry_later"] {
        let (rule, sent) = update_accepted(with_subscribers(&["c1"]));
        let queue = queue(&rule);
        let audience = match operation {
            "checkpoint" => {
                let (value, lease_end) = (json_value!({"page": 7}), NOW + Duration::from_secs(90));
                queue.checkpoint(&key(), &lease(), &value, &half(), last().seq, lease_end).await
            }
            "continue_later" => queue.continue_later(&key(), &lease(), &last()).await,
            _ => {
                let due = NOW + Duration::from_secs(5);
                queue.retry_later(&key(), &lease(), &[past(2)], due, Runner::Worker, &last()).await
            }
        };
        assert_eq!(audience.unwrap(), audience_of(&["c1"]));
        report.push(format!("{operation}\n{}", sent.lock().unwrap()));
    }
    insta::assert_snapshot!(report.join("\n\n"));
}

/// The first update assumes an open request and is refused. The returned item shows that the request is terminal, and
/// whether its timer is missing or too late.
#[tokio::test]
async fn subscription_to_a_terminal_request_sets_a_missing_or_late_timer() {
    let terminal = |timer: Option<u64>| {
        let request = Request { status: Status::Cancelled, finished_at: Some(NOW), ..request() };
        let timer = timer.map(|seconds| NOW + Duration::from_secs(seconds));
        let mut item = request_item::encode(&request, timer, 8).item;
        item.insert("ttl".to_owned(), n(NOW.as_secs()));
        item
    };
    for (old, sets_timer) in [(terminal(None), true), (terminal(Some(30)), false), (terminal(Some(31)), true)]
    {
        let answer = old.clone();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&sent);
        let rule = mock!(Client::update_item)
            .match_requests(move |update: &UpdateItemInput| {
                kept.lock().unwrap().push(text_of_update(update));
                true
            })
            .sequence()
            .http_response(move || condition_failed(Some(&old)))
            .http_response(move || http(200, &json_value!({"Attributes": wire_item(&answer)})))
            .build();
        let subscribed = queue(&rule).subscribe(&key(), &"c3".into(), Seq::default(), NOW).await.unwrap();
        assert!(matches!(subscribed, Subscribed::To(_)), "the connection is subscribed: {subscribed:?}");
        let sent = sent.lock().unwrap();
        assert_eq!(sent.last().unwrap().contains("timer_shard = :timer_shard"), sets_timer);
        assert_eq!(rule.num_calls(), 2);
    }
}

#[tokio::test]
async fn subscription_fails_with_condition_lost_after_four_refused_updates() {
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(|| condition_failed(Some(&item_of(&request()))))
        .repeatedly()
        .build();
    let error = queue(&rule).subscribe(&key(), &"c3".into(), Seq::default(), NOW).await.unwrap_err();
    assert_eq!((error.kind(), rule.num_calls()), (StoreErrorKind::ConditionLost, 4));
}
