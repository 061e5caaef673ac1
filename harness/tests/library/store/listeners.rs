//! Subscriptions of connections to open and terminal requests.

use serde_json::{Value, json};
use streamer::ids::{ConnectionId, RequestKey};
use streamer::protocol::Seq;
use streamer::store::dynamodb::QueueSettings;
use streamer::store::{
    Audience, Ending, ReadRequests as _, Request, RunRequests as _, Runner, Status, SubmitRequests as _,
    SubscribeToRequests as _, Subscribed, Subscriber, SweepRequests as _,
};

use super::{Store, at, delivered_to, ids, last, number, past, request};

async fn subscribe(store: &Store, key: &RequestKey, id: &str, seen: Seq, seconds: u64) -> Subscribed {
    store.queue.subscribe(key, &id.into(), seen, at(seconds)).await.unwrap()
}

fn request_of(subscribed: Subscribed) -> Request {
    let Subscribed::To(request) = subscribed else { panic!("{subscribed:?}") };
    *request
}

/// Returns the last sequence number that the connection `id` has seen; `None` if it is not a subscriber.
fn seen_by(audience: &Audience, id: &str) -> Option<Seq> {
    let found = audience.subscribers.iter().find(|subscriber| subscriber.connection == id.into());
    found.map(|Subscriber { seen, .. }| *seen)
}

#[tokio::test]
async fn subscription_starts_after_the_stored_or_last_seen_frame_whichever_is_newer() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    let last = last(1, 2);
    store.queue.progress(&key, &lease, &last.progress, last.seq, at(62)).await.unwrap();
    let snapshot = request_of(subscribe(&store, &key, "c2", Seq::default(), 3).await);
    assert_eq!(snapshot, store.get(&key).await);
    assert_eq!((snapshot.seq, snapshot.subscribers), (last.seq, ids(&["c1", "c2"])));
    // c3 has already seen a newer frame than the stored one, because not every pushed frame is stored.
    let ahead = last.seq.next().next();
    request_of(subscribe(&store, &key, "c3", ahead, 4).await);
    let audience = store.queue.renew(&key, &lease, at(90)).await.unwrap();
    assert_eq!(seen_by(&audience, "c1"), Some(Seq::default()));
    assert_eq!(seen_by(&audience, "c2"), Some(last.seq));
    assert_eq!(seen_by(&audience, "c3"), Some(ahead));
    // A second subscription of c2 starts after the newly stored frame.
    store.queue.progress(&key, &lease, &last.progress, ahead.next(), at(95)).await.unwrap();
    request_of(subscribe(&store, &key, "c2", Seq::default(), 5).await);
    let audience = store.queue.renew(&key, &lease, at(100)).await.unwrap();
    assert_eq!(seen_by(&audience, "c2"), Some(ahead.next()));
    assert_eq!(audience.subscribers.len(), 3);
}

/// A subscription leaves the timer of an open request unchanged, and never moves the timer of a terminal
/// request to a later time.
#[tokio::test]
async fn subscription_in_any_status_is_accepted_and_does_not_postpone_the_timer() {
    let store = Store::new().await;
    for (n, status) in Status::ALL.into_iter().enumerate() {
        let key = store.enqueue(&format!("r{n}"), 0).await;
        if status != Status::Pending {
            let lease = store.claim(&key, "first", 1).await;
            let (queue, last) = (&store.queue, last(1, 2));
            match status {
                Status::Pending | Status::Processing => {}
                Status::Retrying => {
                    queue
                        .retry_later(&key, &lease, &[], at(30), Runner::Worker, &last)
                        .await
                        .map(drop)
                        .unwrap();
                }
                Status::Completed => queue.complete(&key, &lease, &json!(1), &last).await.map(drop).unwrap(),
                Status::Failed => {
                    let error = super::out_of_paper();
                    queue.fail(&key, &lease, &error, &[past(1, 2)], &last).await.map(drop).unwrap();
                }
                Status::Cancelled => queue.confirm_cancel(&key, &lease, &last).await.map(drop).unwrap(),
            }
        }
        let timer = store.item(&key).await["timer_at"].clone();
        let snapshot = request_of(subscribe(&store, &key, "c2", Seq::default(), 10).await);
        assert_eq!((snapshot.status, &snapshot.subscribers), (status, &ids(&["c1", "c2"])));
        assert_eq!(store.get(&key).await, snapshot);
        assert_eq!(
            store.item(&key).await["timer_at"],
            timer,
            "{status:?}: the subscription does not change the timer"
        );
    }
}

#[tokio::test]
async fn subscription_to_a_delivered_request_sets_a_new_delivery_timer() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    store.queue.complete(&key, &lease, &json!(1), &last(1, 2)).await.unwrap();
    store.queue.record_delivery(&key, 1, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert!(!store.is_in_timers(&key).await);
    let snapshot = request_of(subscribe(&store, &key, "c2", last(1, 2).seq, 100).await);
    assert_eq!(snapshot.ending, Some(Ending::Completed(json!(1))));
    assert_eq!(store.item(&key).await["timer_at"], number(at(130).as_millis()));
    // A repeated subscription of c2 does not postpone the timer.
    request_of(subscribe(&store, &key, "c2", Seq::default(), 120).await);
    assert_eq!(store.item(&key).await["timer_at"], number(at(130).as_millis()));
    // The subscription of c3 moves a far postponed timer to 30 s after the subscription.
    assert!(store.queue.postpone(&key, at(130), at(4_000)).await.unwrap());
    request_of(subscribe(&store, &key, "c3", Seq::default(), 140).await);
    assert_eq!(store.item(&key).await["timer_at"], number(at(170).as_millis()));
    assert!(store.is_in_timers(&key).await);
    // A recorded delivery to c1 does not count as a delivery to c2 and c3.
    store.queue.record_delivery(&key, 1, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    assert!(store.is_in_timers(&key).await);
    store.queue.record_delivery(&key, 1, delivered_to(&ids(&["c2", "c3"]), true)).await.unwrap();
    assert!(!store.is_in_timers(&key).await);
}

#[tokio::test]
async fn request_accepts_at_most_16_subscribers() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let names: Vec<String> = (1..=17).map(|n| format!("c{n}")).collect();
    for name in &names[1..16] {
        request_of(subscribe(&store, &key, name, Seq::default(), 1).await);
    }
    assert_eq!(store.get(&key).await.subscribers.len(), 16);
    let before = store.item(&key).await;
    let Subscribed::Full(mut subscribers) = subscribe(&store, &key, "c17", Seq::default(), 2).await else {
        panic!("expected the store to refuse a 17th subscriber");
    };
    subscribers.sort();
    let mut sixteen: Vec<ConnectionId> = names[..16].iter().map(|name| name.as_str().into()).collect();
    sixteen.sort();
    assert_eq!(subscribers, sixteen);
    assert_eq!(store.item(&key).await, before);
    // A full request still accepts a repeated subscription of c16. After c1 unsubscribes, c17 is accepted.
    request_of(subscribe(&store, &key, "c16", Seq::default(), 3).await);
    store.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    let snapshot = request_of(subscribe(&store, &key, "c17", Seq::default(), 4).await);
    assert_eq!(snapshot.subscribers.len(), 16);
    // The limit of 16 subscribers also applies to a terminal request.
    store.queue.cancel(&key, at(5)).await.unwrap();
    let full = subscribe(&store, &key, "c1", Seq::default(), 6).await;
    assert!(matches!(full, Subscribed::Full(_)), "{full:?}");
    request_of(subscribe(&store, &key, "c17", Seq::default(), 7).await);
}

#[tokio::test]
async fn missing_or_expired_request_accepts_no_subscriber() {
    let store = Store::new().await;
    let absent = RequestKey::from_stored("acme/ann/r9");
    assert_eq!(subscribe(&store, &absent, "c1", Seq::default(), 1).await, Subscribed::Missing);
    assert_eq!(store.queue.get(&absent).await.unwrap(), None);
    let key = store.enqueue("r1", 0).await;
    store.queue.cancel(&key, at(1)).await.unwrap();
    let expiry = 1 + QueueSettings::default().ttl.as_secs();
    request_of(subscribe(&store, &key, "c2", Seq::default(), expiry).await);
    let before = store.item(&key).await;
    assert_eq!(subscribe(&store, &key, "c3", Seq::default(), expiry + 1).await, Subscribed::Missing);
    assert_eq!(store.item(&key).await, before);
}

/// The answer to a subscriber contains the request's status and result, but not its payload or checkpoint.
#[tokio::test]
async fn subscribe_returns_a_big_result_but_neither_payload_nor_checkpoint() {
    let store = Store::new().await;
    let big = || json!("x".repeat(5_000));
    let request = Request { payload: big(), ..request("r1") };
    store.queue.enqueue(&request).await.unwrap();
    let key = request.key();
    let lease = store.claim(&key, "first", 1).await;
    let last = last(1, 2);
    store.queue.checkpoint(&key, &lease, &big(), &last.progress, last.seq, at(90)).await.unwrap();
    store.queue.complete(&key, &lease, &big(), &last).await.unwrap();
    let snapshot = request_of(subscribe(&store, &key, "c2", Seq::default(), 3).await);
    let whole = store.get(&key).await;
    assert_eq!((&whole.payload, &whole.checkpoint), (&big(), &Some(big())));
    let expected = Request { payload: Value::Null, checkpoint: None, ..whole };
    assert_eq!(snapshot.ending, Some(Ending::Completed(big())));
    assert_eq!(snapshot, expected);
    assert_eq!(store.queue.snapshot(&key).await.unwrap(), Some(expected));
}
