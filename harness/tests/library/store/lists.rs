//! Lists of requests by status, by connection and by due time, and `dequeue`, which claims the oldest pending
//! request.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use serde_json::json;
use streamer::ports::Timestamp;
use streamer::protocol::Seq;
use streamer::store::dynamodb::request_item;
use streamer::store::{
    ClaimRequests as _, Claimed, Cursor, NewStatus, Page, PageRequest, Progress, ReadRequests as _, Request,
    RequestSummary, RunRequests as _, Runner, Status, StoreErrorKind, SubmitRequests as _,
    SubscribeToRequests as _, SweepRequests as _, pages,
};

use super::{LEASE, Store, at, ids, last, past, request, string};

fn names(requests: &[RequestSummary]) -> Vec<&str> {
    requests.iter().map(|request| request.id.as_str()).collect()
}

async fn by_status(store: &Store, status: Status) -> Page<RequestSummary> {
    store.queue.get_by_status(status, PageRequest::first(100)).await.unwrap()
}

/// Enqueues 30 requests and returns their ids, oldest first. The requests are spread over several shards of
/// the index, so that a list query must merge several shards.
async fn thirty_pending(store: &Store) -> Vec<String> {
    let names: Vec<String> = (0..30).map(|n| format!("r{n}")).collect();
    let shards: BTreeSet<u8> = names.iter().map(|name| request(name).key().shard(8)).collect();
    assert!(shards.len() > 4, "{shards:?}");
    for (seconds, name) in names.iter().enumerate().rev() {
        store.enqueue(name, seconds as u64).await;
    }
    names
}

#[tokio::test]
async fn requests_of_a_status_are_listed_across_all_shards_oldest_first() {
    let store = Store::new().await;
    let all = thirty_pending(&store).await;
    let page = by_status(&store, Status::Pending).await;
    assert_eq!(names(&page.items), all);
    assert_eq!(page.next, None);
    for limit in [1, 2, 7, 29, 30, 31] {
        let list = |page| store.queue.get_by_status(Status::Pending, page);
        let listed: Vec<_> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
        assert_eq!(names(&listed), all, "page limit {limit}");
    }
    assert!(by_status(&store, Status::Failed).await.items.is_empty());
}

#[tokio::test]
async fn requests_created_at_the_same_time_are_each_listed_exactly_once() {
    let store = Store::new().await;
    let mut all = BTreeSet::new();
    for n in 0..30 {
        all.insert(format!("r{n}"));
        store.enqueue(&format!("r{n}"), n / 10).await;
    }
    for limit in 1..=11 {
        let list = |page| store.queue.get_by_status(Status::Pending, page);
        let listed: Vec<_> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
        assert_eq!(listed.len(), 30, "page limit {limit}");
        assert!(listed.is_sorted_by_key(|request| request.created_at), "page limit {limit}");
        let listed: BTreeSet<_> = listed.iter().map(|request| request.id.to_string()).collect();
        assert_eq!(listed, all, "page limit {limit}");
    }
}

/// A cursor stays valid even if the request at its position has left the list.
#[tokio::test]
async fn status_list_continues_after_the_listed_requests_have_changed_status() {
    let store = Store::new().await;
    let all = thirty_pending(&store).await;
    let mut page = PageRequest::first(4);
    let mut listed = Vec::new();
    loop {
        let Page { items, next, .. } =
            store.queue.get_by_status(Status::Pending, page.clone()).await.unwrap();
        for request in &items {
            store.claim(&request.key(), "first", 40).await;
            listed.push(request.id.to_string());
        }
        let Some(next) = next else { break };
        page = page.after(next.to_string().parse().unwrap());
    }
    assert_eq!(listed, all);
    assert!(by_status(&store, Status::Pending).await.items.is_empty());
    assert_eq!(names(&by_status(&store, Status::Processing).await.items), all);
}

#[tokio::test]
async fn summary_of_a_listed_request_matches_the_stored_attributes() {
    let store = Store::new().await;
    let (key, lease) = store.claimed("r1").await;
    store.queue.cancel(&key, at(2)).await.unwrap();
    let running = &by_status(&store, Status::Processing).await.items[0];
    let expected = RequestSummary {
        id: "r1".into(),
        user: "ann".into(),
        tenant: "acme".into(),
        connection: "c1".into(),
        action: "report".to_owned(),
        status: Status::Processing,
        attempt: 1,
        max_attempts: 3,
        epoch: 1,
        lease: Some(lease.clone()),
        cancel_requested: true,
        continuations: 0,
        runner: Runner::Processor,
        history: Vec::new(),
        is_dead_letter_due: false,
        progress: Progress::default(),
        seq: Seq::default(),
        subscribers: ids(&["c1"]),
        created_at: at(0),
        started_at: Some(at(1)),
        finished_at: None,
        timer_at: Some(at(71)),
    };
    assert_eq!(*running, expected);
    assert_eq!(running.key(), key);
    let (key, lease) = store.claimed("r2").await;
    let history = vec![past(1, 2)];
    store.queue.retry_later(&key, &lease, &history, at(30), Runner::Worker, &last(1, 2)).await.unwrap();
    let waiting = &by_status(&store, Status::Retrying).await.items[0];
    assert_eq!((&waiting.history, waiting.timer_at), (&history, Some(at(30))));
    assert_eq!(waiting.runner, Runner::Worker);
}

#[tokio::test]
async fn requests_of_a_connection_are_listed_newest_first_in_any_status() {
    let store = Store::new().await;
    for (n, connection) in ["c1", "c2", "c1", "c1"].into_iter().enumerate() {
        let request = Request {
            connection: connection.into(),
            created_at: at(10 - n as u64),
            ..request(&format!("r{n}"))
        };
        store.queue.enqueue(&request).await.unwrap();
    }
    let lease = store.claim(&request("r2").key(), "first", 20).await;
    store.queue.complete(&request("r2").key(), &lease, &json!(1), &last(1, 21)).await.unwrap();
    let listed = store.queue.get_by_connection(&"c1".into(), PageRequest::default()).await.unwrap();
    assert_eq!(names(&listed.items), ["r0", "r2", "r3"], "requests of a connection are listed newest first");
    let connection = "c1".into();
    let list = |page| store.queue.get_by_connection(&connection, page);
    for limit in 1..=4 {
        let listed: Vec<_> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
        assert_eq!(names(&listed), ["r0", "r2", "r3"], "page limit {limit}");
    }
    let empty = store.queue.get_by_connection(&"c9".into(), PageRequest::default()).await.unwrap();
    assert!(empty.items.is_empty() && empty.next.is_none());
}

#[tokio::test]
async fn due_requests_are_listed_in_the_order_of_their_due_times() {
    let store = Store::new().await;
    // An unclaimed request is due 60 s after its creation.
    for (id, seconds) in [("r1", 5), ("r2", 3), ("r3", 4), ("r4", 100)] {
        store.enqueue(id, seconds).await;
    }
    let due = async |now: Timestamp| store.queue.due(now, PageRequest::default()).await.unwrap().items;
    assert!(due(at(62)).await.is_empty());
    assert_eq!(names(&due(at(63)).await), ["r2"], "a request is listed from exactly its due time");
    assert_eq!(names(&due(at(65)).await), ["r2", "r3", "r1"]);
    // A claimed request is due 10 s after the expiry of its lease.
    store.claim(&request("r2").key(), "first", 10).await;
    assert_eq!(names(&due(at(79)).await), ["r3", "r1"]);
    assert_eq!(names(&due(at(80)).await), ["r3", "r1", "r2"]);
    let list = |page| store.queue.due(at(80), page);
    let listed: Vec<_> = pages(PageRequest::first(1), list).try_collect().await.unwrap();
    assert_eq!(names(&listed), ["r3", "r1", "r2"]);
    // A cancelled request without subscribers is never due again.
    store.queue.cancel(&request("r3").key(), at(70)).await.unwrap();
    store.queue.unsubscribe(&request("r3").key(), &"c1".into()).await.unwrap();
    assert_eq!(names(&due(at(1_000)).await), ["r1", "r2", "r4"]);
}

/// The cursor comes from a query for requests that are due at 100 s. The second query is for requests that are
/// due at 60 s, all of which are before the cursor.
#[tokio::test]
async fn due_list_continued_from_a_cursor_later_than_the_query_time_is_empty() {
    let store = Store::new().await;
    for n in 0..20 {
        store.enqueue(&format!("r{n}"), n).await;
    }
    let first = store.queue.due(at(100), PageRequest::first(10)).await.unwrap();
    let page = PageRequest { limit: 10, after: first.next };
    let rest = store.queue.due(at(60), page).await.unwrap();
    assert!(rest.items.is_empty() && rest.next.is_none(), "{rest:?}");
}

#[tokio::test]
async fn corrupt_request_is_reported_and_other_requests_are_listed() {
    let store = Store::new().await;
    for n in 0..3 {
        store.enqueue(&format!("r{n}"), n).await;
    }
    store.edit(&request("r1").key(), "SET attempt = :value", string("once")).await;
    let page = by_status(&store, Status::Pending).await;
    assert_eq!(names(&page.items), ["r0", "r2"]);
    let problem =
        "corrupt item: item \"acme/ann/r1\", attribute \"attempt\": expected a number, found a string";
    let problems: Vec<_> = page.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(problems, [problem]);
    let list = |page| store.queue.get_by_status(Status::Pending, page);
    let error = pages(PageRequest::first(1), list).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn list_query_with_an_invalid_page_limit_or_cursor_is_a_misuse_error() {
    let store = Store::new().await;
    for n in 0..2 {
        store.enqueue(&format!("r{n}"), n).await;
    }
    for limit in [0, 101] {
        let error = store.queue.get_by_status(Status::Pending, PageRequest::first(limit)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misuse);
        assert!(error.to_string().contains("expected 1 to 100"), "{error}");
    }
    let first = store.queue.get_by_status(Status::Pending, PageRequest::first(1)).await.unwrap();
    let elsewhere = PageRequest { limit: 1, after: first.next };
    let error = store.queue.due(at(1_000), elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    assert!(error.to_string().contains("after a cursor of the list status-time#"), "{error}");
    for text in ["", "r1", "c3RhdHVzLXRpbWU", "c3RhdHVzLXRpbWUgeCAxIGE"] {
        assert_eq!(text.parse::<Cursor>().unwrap_err().kind(), StoreErrorKind::Misuse, "{text:?}");
    }
}

/// A list refuses the cursor of another list. If a list accepted such a cursor, the list would silently skip its own
/// entries before the cursor.
#[tokio::test]
async fn list_cursor_is_refused_by_the_list_of_another_status_or_connection() {
    let store = Store::new().await;
    for n in 0..4 {
        let request = Request { created_at: at(n), ..request(&format!("r{n}")) };
        store.queue.enqueue(&request).await.unwrap();
    }
    let first = PageRequest::first(1);
    let pending = store.queue.get_by_status(Status::Pending, first.clone()).await.unwrap().next.unwrap();
    let c1 = store.queue.get_by_connection(&"c1".into(), first.clone()).await.unwrap().next.unwrap();
    for other in [
        store.queue.get_by_status(Status::Failed, first.after(pending.clone())).await,
        store.queue.get_by_connection(&"c2".into(), first.after(c1.clone())).await,
        store.queue.get_by_connection(&"c1".into(), first.after(pending.clone())).await,
    ] {
        assert_eq!(other.unwrap_err().kind(), StoreErrorKind::Misuse);
    }
    // The list that returned a cursor accepts the cursor.
    store.queue.get_by_status(Status::Pending, first.after(pending)).await.unwrap();
    store.queue.get_by_connection(&"c1".into(), first.after(c1)).await.unwrap();
}

#[tokio::test]
async fn dequeue_skips_corrupt_requests_and_claims_the_readable_ones() {
    let store = Store::new().await;
    let names: Vec<String> = (0..14).map(|n| format!("r{n}")).collect();
    for (seconds, name) in names.iter().enumerate() {
        store.enqueue(name, seconds as u64).await;
    }
    // The corrupt requests fill more than one page of the index query.
    let (bad, good) = names.split_at(12);
    for name in bad {
        store.edit(&request(name).key(), "SET attempt = :value", string("once")).await;
    }
    let dequeue = async || store.queue.dequeue("operator", at(20), at(20) + LEASE).await;
    for name in good {
        let Some(Claimed::Won(request, _)) = dequeue().await.unwrap() else { panic!("{name}") };
        assert_eq!(request.id.as_str(), name);
    }
    let error = dequeue().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse, "{error}");
    assert!(error.to_string().contains("acme/ann/r0"), "the error names the oldest corrupt request: {error}");
}

#[tokio::test]
async fn dequeue_claims_the_oldest_pending_request_first_until_none_is_left() {
    let store = Store::new().await;
    for (id, seconds) in [("r1", 3), ("r2", 1), ("r3", 2)] {
        store.enqueue(id, seconds).await;
    }
    store.claim(&request("r3").key(), "worker", 5).await;
    let mut taken = Vec::new();
    while let Some(claimed) = store.queue.dequeue("operator", at(10), at(10) + LEASE).await.unwrap() {
        let Claimed::Won(request, lease) = claimed else { panic!("{claimed:?}") };
        assert_eq!((request.attempt, lease.owner.as_str()), (1, "operator"));
        taken.push(request.id.to_string());
    }
    assert_eq!(taken, ["r2", "r1"]);
}

#[tokio::test]
async fn each_request_is_claimed_by_exactly_one_of_two_concurrent_dequeuers() {
    let store = Store::new().await;
    let all = thirty_pending(&store).await;
    let take = async |owner: &str| {
        let mut taken = Vec::new();
        while let Some(claimed) = store.queue.dequeue(owner, at(40), at(40) + LEASE).await.unwrap() {
            let Claimed::Won(request, _) = claimed else { panic!("{claimed:?}") };
            taken.push(request.id.to_string());
            tokio::task::yield_now().await;
        }
        taken
    };
    let (first, second) = tokio::join!(take("first"), take("second"));
    assert!(!first.is_empty() && !second.is_empty());
    let mut taken = [first, second].concat();
    taken.sort();
    let mut expected = all;
    expected.sort();
    assert_eq!(taken, expected);
}

/// Each change of a request's status updates the status index.
#[tokio::test]
async fn request_is_listed_only_under_its_current_status() {
    let store = Store::new().await;
    let key = store.enqueue("r1", 0).await;
    let listed = async || {
        let mut found = Vec::new();
        for status in Status::ALL {
            let page = by_status(&store, status).await;
            found.extend(page.items.iter().map(|request| request.status));
        }
        found
    };
    assert_eq!(listed().await, [Status::Pending]);
    let lease = store.claim(&key, "first", 1).await;
    assert_eq!(listed().await, [Status::Processing]);
    store.queue.retry_later(&key, &lease, &[], at(2), Runner::Processor, &last(1, 2)).await.unwrap();
    assert_eq!(listed().await, [Status::Retrying]);
    store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(3)).await.unwrap();
    assert_eq!(listed().await, [Status::Pending]);
    store.queue.cancel(&key, at(4)).await.unwrap();
    assert_eq!(listed().await, [Status::Cancelled]);
}

/// The index is eventually consistent with the table. The list omits a request that the index still has under
/// an old status.
#[tokio::test]
async fn request_whose_stored_status_differs_from_the_index_is_omitted_from_the_list() {
    let store = Store::new().await;
    let (r1, _) = (store.enqueue("r1", 0).await, store.enqueue("r2", 1).await);
    // Change only the status attribute, so that the index still lists r1 as pending.
    let update = store.client.update_item().table_name(&store.requests_table);
    let update = update.set_key(Some(request_item::key(&r1))).update_expression("SET #status = :processing");
    let update = update.expression_attribute_names("#status", "status");
    update.expression_attribute_values(":processing", string("PROCESSING")).send().await.unwrap();
    assert_eq!(names(&by_status(&store, Status::Pending).await.items), ["r2"]);
}
