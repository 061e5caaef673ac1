//! Store operations that save a checkpoint, and that yield a request so that it continues in a new invocation.

use serde_json::{Value, json};
use streamer::protocol::Seq;
use streamer::store::dynamodb::{QueueSettings, part_item};
use streamer::store::{
    Cancelled, Claimed, LastReport, Lease, Progress, Request, RunRequests as _, Runner, Status,
    StoreErrorKind, SubmitRequests as _, SubscribeToRequests as _,
};

use super::{Store, at, delivered_to, ids, last, number};

/// Returns a JSON string that has `bytes` bytes when serialized.
fn value_of(bytes: usize) -> Value {
    json!("x".repeat(bytes - 2))
}

fn half() -> Progress {
    Progress { percentage: 50.0, message: "Half".to_owned(), ..Progress::default() }
}

/// Returns the `n`th sequence number of epoch 1.
fn seq(n: usize) -> Seq {
    (0..n).fold(Seq::start_of(1), |seq, _| seq.next())
}

#[tokio::test]
async fn last_saved_checkpoint_is_returned_whether_inline_or_in_a_part_item() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let before = store.get(&key).await;
    assert_eq!(before.checkpoint, None);
    let limit = part_item::MAX_INLINE_BYTES;
    for (n, bytes) in [limit, limit + 1, 9_000, limit, 100, limit + 1].into_iter().enumerate() {
        let (value, until) = (value_of(bytes), at(100 + n as u64));
        let saved = store.queue.checkpoint(&key, &lease, &value, &half(), seq(n + 1), until).await.unwrap();
        assert_eq!(saved.subscribers[0].connection, "c1".into());
        let is_part = bytes > limit;
        let item = store.item(&key).await;
        assert_eq!(item.contains_key("checkpoint"), !is_part, "{n}: {bytes}");
        // The request's item keeps the name of a part item that an inline checkpoint has replaced. The terminal
        // write needs the name to set the part item's expiry time.
        assert_eq!(item.contains_key("checkpoint_part"), n > 0, "{n}: {bytes}");
        let expected = Request {
            checkpoint: Some(value),
            progress: half(),
            seq: seq(n + 1),
            lease: Some(Lease { expires_at: until, ..lease.clone() }),
            ..before.clone()
        };
        assert_eq!(store.get(&key).await, expected, "{n}: {bytes}");
    }
}

/// The store refuses both a small (inline) and a large checkpoint of the fenced attempt.
#[tokio::test]
async fn checkpoint_of_a_fenced_attempt_is_not_stored() {
    let store = Store::new().await;
    let (key, first) = store.claimed("r1").await;
    store.queue.checkpoint(&key, &first, &value_of(3_000), &half(), seq(1), at(90)).await.unwrap();
    store.queue.continue_later(&key, &first, &last(1, 3)).await.unwrap();
    let second = store.claim(&key, "second", 4).await;
    store.queue.checkpoint(&key, &second, &value_of(4_000), &half(), Seq::start_of(2), at(90)).await.unwrap();
    let running = store.item(&key).await;
    for bytes in [10, 5_000] {
        let late = store.queue.checkpoint(&key, &first, &value_of(bytes), &half(), seq(5), at(95)).await;
        assert_eq!(late.unwrap_err().kind(), StoreErrorKind::Fenced);
    }
    assert_eq!(store.item(&key).await, running);
    assert_eq!(store.get(&key).await.checkpoint, Some(value_of(4_000)));
}

#[tokio::test]
async fn yield_makes_the_request_pending_for_the_worker_and_uses_up_no_attempt() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    store.queue.checkpoint(&key, &lease, &json!({"page": 7}), &half(), seq(1), at(90)).await.unwrap();
    let before = store.get(&key).await;
    let last_report = LastReport { progress: half(), seq: seq(2), at: at(5) };
    store.queue.continue_later(&key, &lease, &last_report).await.unwrap();
    let expected = Request {
        status: Status::Pending,
        runner: Runner::Worker,
        attempt: 0,
        continuations: 1,
        lease: None,
        seq: seq(2),
        ..before
    };
    assert_eq!(store.get(&key).await, expected);
    assert_eq!(store.item(&key).await["timer_at"], number(at(155).as_millis()));
    // A repeated yield succeeds and changes nothing, because a caller repeats a write whose response was lost.
    let written = store.item(&key).await;
    store.queue.continue_later(&key, &lease, &last_report).await.unwrap();
    assert_eq!(store.item(&key).await, written);
    let refused = store.try_claim(&key, "processor", Runner::Processor, 6).await;
    assert!(matches!(refused, Claimed::ForWorker), "{refused:?}");
    let won = store.try_claim(&key, "worker", Runner::Worker, 6).await;
    let Claimed::Won(won, second) = won else { panic!("{won:?}") };
    assert_eq!((won.attempt, won.continuations, second.epoch), (1, 1, 2));
    assert_eq!((won.checkpoint, won.progress), (Some(json!({"page": 7})), half()));
    store.queue.continue_later(&key, &second, &last(2, 7)).await.unwrap();
    assert_eq!(store.get(&key).await.continuations, 2);
}

#[tokio::test]
async fn yield_of_a_running_request_is_refused_after_a_cancel_request() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    assert_eq!(store.queue.cancel(&key, at(2)).await.unwrap(), Cancelled::Requested);
    let before = store.item(&key).await;
    let error = store.queue.continue_later(&key, &lease, &last(1, 3)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ConditionLost);
    assert_eq!(store.item(&key).await, before);
}

/// The part item expires even if a later checkpoint is small enough to be stored inline.
#[tokio::test]
async fn part_item_of_a_checkpoint_expires_48_hours_after_its_request() {
    let store = Store::new().await;
    let ttl = |seconds| number((at(seconds) + QueueSettings::default().ttl).as_secs() + 48 * 3600);
    for (n, sizes) in [&[3_000][..], &[3_000, 10]].into_iter().enumerate() {
        for end in ["complete", "cancel while pending"] {
            let (key, lease) = store.claimed(&format!("{end} {n}")).await;
            for bytes in sizes {
                let (value, half) = (value_of(*bytes), half());
                store.queue.checkpoint(&key, &lease, &value, &half, seq(1), at(90)).await.unwrap();
            }
            let part = async || store.part(&key, part_item::CHECKPOINT_PART).await.unwrap();
            assert!(
                !part().await.contains_key("ttl"),
                "{end}: the part item of an open request has no expiry time"
            );
            if end == "complete" {
                let ended = store.queue.complete(&key, &lease, &json!(1), &last(1, 5)).await.unwrap();
                assert!(ended.part_ttls_set);
            } else {
                store.queue.continue_later(&key, &lease, &last(1, 4)).await.unwrap();
                store.queue.cancel(&key, at(5)).await.unwrap();
            }
            assert_eq!(part().await["ttl"], ttl(5), "{end}");
            store.queue.record_delivery(&key, 1, delivered_to(&ids(&["c1"]), true)).await.unwrap();
            assert!(!store.is_in_timers(&key).await);
            let checkpoint = store.get(&key).await.checkpoint;
            assert_eq!(checkpoint, sizes.last().map(|bytes| value_of(*bytes)));
        }
    }
}
