//! Tests of lists when the index lags, a shard returns a short page, or a batch read leaves keys unprocessed.

use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemInput;
use aws_sdk_dynamodb::operation::query::QueryInput;

use super::super::read::{CONNECTION_REQUESTS, STATUS_TIME};
use super::*;
use crate::ids::fnv1a;
use crate::store::dynamodb::index::{List, Order};
use crate::store::{Cursor, Page, PageRequest, RequestSummary};

fn named(id: &str, seconds: u64) -> Request {
    Request { id: id.into(), created_at: NOW + Duration::from_secs(seconds), ..request() }
}

fn entry(id: &str, seconds: u64, shard: u8) -> Value {
    let item = item_of(&named(id, seconds));
    let keys = ["request_id", "part", "created_at"].map(|name| (name.to_owned(), item[name].clone()));
    let mut entry = wire_item(&keys.into());
    entry["status_shard"] = json_value!({"S": format!("PENDING#{shard}")});
    entry
}

fn queue_on(shards: u8, rules: &[&Rule]) -> DynamoRequestQueue {
    queue_of(rules.iter().copied(), QueueSettings { shards, ..QueueSettings::default() })
}

/// Answers a query of a shard with these entries, and with a `LastEvaluatedKey` if `more` is set.
fn shard_of(shard: u8, entries: Vec<Value>, more: bool) -> Rule {
    mock!(Client::query)
        .match_requests(move |query: &QueryInput| {
            let values = query.expression_attribute_values().unwrap();
            values[":partition"] == s(format!("PENDING#{shard}"))
        })
        .then_http_response(move || {
            let mut answer = json_value!({"Items": entries});
            if let Some(last) = entries.last().filter(|_| more) {
                answer["LastEvaluatedKey"] = last.clone();
            }
            http(200, &answer)
        })
}

/// Answers batch reads. The n-th answer leaves the last `unread[n]` keys unprocessed. The returned list records the
/// number of keys that each call requests.
fn batch_leaving(unread: &'static [usize]) -> (Rule, Arc<Mutex<Vec<usize>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let latest = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&latest);
    let rule = mock!(Client::batch_get_item)
        .match_requests(move |batch: &BatchGetItemInput| {
            let asked = &batch.request_items().unwrap()["requests"];
            assert_eq!(asked.consistent_read(), Some(true));
            *seen.lock().unwrap() = asked.keys().to_vec();
            true
        })
        .sequence()
        .http_response(move || {
            let keys = latest.lock().unwrap().clone();
            let mut asked = kept.lock().unwrap();
            let left = keys.len().min(unread.get(asked.len()).copied().unwrap_or(0));
            asked.push(keys.len());
            let (read, left) = keys.split_at(keys.len() - left);
            let found: Vec<Value> = read
                .iter()
                .map(|key| {
                    let key = RequestKey::from_stored(key["request_id"].as_s().unwrap());
                    let id = key.as_str().rsplit('/').next().unwrap().to_owned();
                    wire_item(&item_of(&named(&id, 0)))
                })
                .collect();
            let unprocessed = if left.is_empty() {
                json_value!({})
            } else {
                json_value!({"requests": {"Keys": left.iter().map(wire_item).collect::<Vec<_>>()}})
            };
            http(200, &json_value!({"Responses": {"requests": found}, "UnprocessedKeys": unprocessed}))
        })
        .repeatedly()
        .build();
    (rule, asked)
}

fn ids(page: &Page<RequestSummary>) -> Vec<&str> {
    page.items.iter().map(|request| request.id.as_str()).collect()
}

async fn pending(queue: &DynamoRequestQueue, limit: usize) -> Result<Page<RequestSummary>, StoreError> {
    queue.get_by_status(Status::Pending, PageRequest::first(limit)).await
}

#[tokio::test(start_paused = true)]
async fn unprocessed_keys_of_a_batch_read_are_requested_again() {
    let entries = (0..5).map(|n| entry(&format!("r{n}"), n, 0)).collect();
    let (shard, (batch, asked)) = (shard_of(0, entries, false), batch_leaving(&[3, 2]));
    let page = pending(&queue_on(1, &[&shard, &batch]), 25).await.unwrap();
    assert_eq!(ids(&page), ["r0", "r1", "r2", "r3", "r4"], "items keep the order of the list");
    assert_eq!(*asked.lock().unwrap(), [5, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn list_is_throttled_when_batch_reads_keep_leaving_keys_unprocessed() {
    let entries = vec![entry("r1", 1, 0)];
    let (shard, (batch, asked)) = (shard_of(0, entries, false), batch_leaving(&[1; 9]));
    let started = tokio::time::Instant::now();
    let error = pending(&queue_on(1, &[&shard, &batch]), 25).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Throttled);
    let expected = "read status-time of table requests (PENDING#0): 1 keys still unprocessed after 5 calls";
    assert!(error.to_string().ends_with(expected), "the error names the list and the table: {error}");
    assert_eq!(*asked.lock().unwrap(), [1; 5]);
    let waited = Duration::from_millis(50 + 100 + 200 + 400);
    assert_eq!(started.elapsed().as_millis(), waited.as_millis());
}

/// The next entry of the first shard is unknown, and may be older than all entries of the second shard.
#[tokio::test]
async fn page_ends_when_a_shard_that_has_more_entries_runs_out() {
    let first = shard_of(0, vec![entry("r1", 1, 0), entry("r2", 2, 0)], true);
    let second = shard_of(1, vec![entry("r3", 3, 1), entry("r4", 4, 1)], false);
    let (batch, _) = batch_leaving(&[]);
    let page = pending(&queue_on(2, &[&first, &second, &batch]), 10).await.unwrap();
    assert_eq!(ids(&page), ["r1", "r2"]);
    assert!(page.next.is_some());
}

#[tokio::test]
async fn newest_first_list_merges_shards_in_descending_order() {
    let first = shard_of(0, vec![entry("r5", 5, 0), entry("r2", 2, 0)], false);
    let second = shard_of(1, vec![entry("r9", 9, 1), entry("r4", 4, 1), entry("r1", 1, 1)], true);
    let queue = queue_on(2, &[&first, &second]);
    let list = queue.list(&STATUS_TIME, queue.status_shards(Status::Pending));
    let list = List { order: Order::NewestFirst, ..list };
    let (entries, next) = list.keys(&PageRequest::first(10)).await.unwrap();
    let keys: Vec<&str> = entries.iter().map(|entry| entry.key.rsplit('/').next().unwrap()).collect();
    assert_eq!(keys, ["r9", "r5", "r4", "r2", "r1"]);
    assert!(next.is_some());
}

#[tokio::test]
async fn shard_query_continues_after_an_empty_page() {
    let shard = mock!(Client::query)
        .sequence()
        .http_response(|| http(200, &json_value!({"Items": [], "LastEvaluatedKey": entry("r0", 0, 0)})))
        .http_response(|| http(200, &json_value!({"Items": [entry("r1", 1, 0)]})))
        .build();
    let (batch, _) = batch_leaving(&[]);
    let page = pending(&queue_on(1, &[&shard, &batch]), 10).await.unwrap();
    assert_eq!(ids(&page), ["r1"]);
    assert_eq!((page.next, shard.num_calls()), (None, 2));
}

/// An index that changes during the queries may return an entry twice, but BatchGetItem refuses duplicate keys.
#[tokio::test]
async fn index_entry_returned_by_two_shards_is_listed_once() {
    let first = shard_of(0, vec![entry("r1", 1, 0)], false);
    let second = shard_of(1, vec![entry("r1", 3, 1)], false);
    let (batch, asked) = batch_leaving(&[]);
    let page = pending(&queue_on(2, &[&first, &second, &batch]), 10).await.unwrap();
    assert_eq!(ids(&page), ["r1"]);
    assert_eq!(*asked.lock().unwrap(), [1]);
}

#[tokio::test]
async fn each_shard_query_starts_at_its_own_bound_after_the_cursor() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    let rule = mock!(Client::query)
        .match_requests(move |query: &QueryInput| {
            let mut lines = vec![query.key_condition_expression().unwrap().to_owned()];
            if query.scan_index_forward() == Some(false) {
                lines.push("in descending order".to_owned());
            }
            lines.extend(sorted(query.expression_attribute_values()));
            lines.extend(sorted(query.exclusive_start_key()).into_iter().map(|key| format!("after {key}")));
            kept.lock().unwrap().push(lines.join("\n"));
            true
        })
        .sequence()
        .http_response(|| http(200, &json_value!({"Items": []})))
        .repeatedly()
        .build();
    let queue = queue_on(3, &[&rule]);
    let page = |index: &str, first: &str| {
        let list = format!("{index}#{:016x}", fnv1a(first));
        let cursor = Cursor { list, at: 5_000, shard: 1, key: "acme/ann/r1".to_owned() };
        PageRequest { limit: 7, after: Some(cursor) }
    };
    queue.get_by_status(Status::Pending, page("status-time", "PENDING#0")).await.unwrap();
    queue.due(Timestamp::from_secs(5), page("timers", "0")).await.unwrap();
    let shards = ["a", "b", "c"].map(str::to_owned).to_vec();
    let newest = List { order: Order::NewestFirst, ..queue.list(&CONNECTION_REQUESTS, shards) };
    newest.keys(&page("connection-requests", "a")).await.unwrap();
    let mut sent = sent.lock().unwrap().clone();
    sent.sort();
    sent.dedup();
    insta::assert_snapshot!(sent.join("\n\n"));
}

/// The index still lists requests that other functions have claimed. `dequeue` skips these, even across pages.
#[tokio::test]
async fn dequeue_skips_requests_that_other_functions_have_claimed() {
    let query = mock!(Client::query)
        .sequence()
        .http_response(|| {
            let entries: Vec<Value> = (0..10).map(|n| entry(&format!("r{n}"), n, 0)).collect();
            http(200, &json_value!({"LastEvaluatedKey": entries[9], "Items": entries}))
        })
        .http_response(|| http(200, &json_value!({"Items": [entry("r10", 10, 0), entry("r11", 11, 0)]})))
        .build();
    let claims = Mutex::new(0);
    let claim = mock!(Client::update_item)
        .sequence()
        .http_response(move || {
            let mut claims = claims.lock().unwrap();
            *claims += 1;
            match *claims {
                // The third request has been deleted since the index query.
                3 => condition_failed(None),
                1..=11 => condition_failed(Some(&item_of(&claimed_by(OTHER_OWNER)))),
                _ => http(200, &json_value!({"Attributes": wire_item(&item_of(&claimed_by(OUR_OWNER)))})),
            }
        })
        .repeatedly()
        .build();
    let queue = queue_on(1, &[&query, &claim]);
    let claimed = queue.dequeue(OUR_OWNER, NOW, NOW + Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(text_of(&claimed), text_of(&won()));
    assert_eq!((query.num_calls(), claim.num_calls()), (2, 12));
}

/// With an IAM role that permits reads but no writes, every claim is refused.
#[tokio::test]
async fn dequeue_stops_after_one_hundred_refused_claims() {
    let entries: Vec<Value> = (0..10).map(|n| entry(&format!("r{n}"), n, 0)).collect();
    let endless = shard_of(0, entries, true);
    let denied = mock!(Client::update_item)
        .sequence()
        .http_response(|| error_answer(400, "AccessDeniedException", "not authorized to perform UpdateItem"))
        .repeatedly()
        .build();
    let queue = queue_on(1, &[&endless, &denied]);
    let error = queue.dequeue(OUR_OWNER, NOW, NOW + Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    assert_eq!(denied.num_calls(), 100);
}

#[tokio::test]
async fn empty_index_leads_to_an_empty_page_without_a_batch_read() {
    let shard = shard_of(0, Vec::new(), false);
    let (batch, asked) = batch_leaving(&[]);
    let queue = queue_on(1, &[&shard, &batch]);
    let page = pending(&queue, 25).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
    assert!(asked.lock().unwrap().is_empty());
    assert!(queue.dequeue(OUR_OWNER, NOW, NOW + Duration::from_secs(60)).await.unwrap().is_none());
}

#[tokio::test]
async fn index_entry_without_its_sort_key_is_corrupt() {
    let shard = shard_of(0, vec![json_value!({"request_id": {"S": "acme/ann/r1"}})], false);
    let error = pending(&queue_on(1, &[&shard]), 25).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(
        error.to_string().contains("\"created_at\": is missing"),
        "the error names the attribute: {error}"
    );
}
