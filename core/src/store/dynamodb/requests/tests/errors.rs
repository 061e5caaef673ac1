//! Tests of all operations of the request queue when DynamoDB refuses a call, fails, or does not respond.

use super::*;
use crate::store::dynamodb::test_answers::{Operation, every_call_answered, operations};
use crate::store::{NewStatus, PageRequest, RequestSummary};

pub(super) fn big_request() -> Request {
    Request { payload: json_value!("x".repeat(5_000)), ..request() }
}

/// Returns the summary of a due request, as the sweeper reads it.
pub(super) fn seen(request: &Request) -> RequestSummary {
    request_item::decode_summary(&request_item::encode(request, Some(NOW), 8).item).unwrap()
}

async fn checkpoint_big(queue: &DynamoRequestQueue) -> Result<Audience, StoreError> {
    let checkpoint = big_request().payload;
    queue.checkpoint(&key(), &lease(), &checkpoint, &Progress::default(), SEQ, NOW).await
}

const SEQ: Seq = Seq::start_of(2);

const OPERATIONS: [Operation<DynamoRequestQueue>; 28] = operations! {
    "enqueue": |queue| queue.enqueue(&request());
    "enqueue (large payload)": |queue| queue.enqueue(&big_request());
    "get": |queue| queue.get(&key());
    "claim": |queue| queue.claim(&key(), OUR_OWNER, Runner::Worker, NOW, NOW + Duration::from_secs(60));
    "dequeue": |queue| queue.dequeue(OUR_OWNER, NOW, NOW + Duration::from_secs(60));
    "renew": |queue| queue.renew(&key(), &lease(), NOW + Duration::from_secs(90));
    "progress": |queue| queue.progress(&key(), &lease(), &Progress::default(), SEQ, NOW);
    "checkpoint": |queue| queue.checkpoint(&key(), &lease(), &json_value!(7), &Progress::default(), SEQ, NOW);
    "checkpoint (large)": |queue| checkpoint_big(&queue);
    "complete": |queue| queue.complete(&key(), &lease(), &Value::Null, &last());
    "complete (large result)": |queue| queue.complete(&key(), &lease(), &big_request().payload, &last());
    "fail": |queue| queue.fail(&key(), &lease(), &out_of_paper(), &[past(2)], &last());
    "confirm_cancel": |queue| queue.confirm_cancel(&key(), &lease(), &last());
    "retry_later": |queue| queue.retry_later(&key(), &lease(), &[past(2)], NOW, Runner::Worker, &last());
    "continue_later": |queue| queue.continue_later(&key(), &lease(), &last());
    "record_delivery": |queue| queue.record_delivery(&key(), lease().epoch, delivered_to(&["c1".into()], true));
    "nudge": |queue| queue.nudge(&seen(&request()), NOW);
    "postpone": |queue| queue.postpone(&key(), NOW, NOW + Duration::from_secs(1));
    "reclaim": |queue| queue.reclaim(&seen(&claimed_by(OUR_OWNER)), &ReclaimVerdict::Rerun, &[past(2)], NOW);
    "subscribe": |queue| queue.subscribe(&key(), &"c3".into(), SEQ, NOW);
    "record_redrive": |queue| queue.record_redrive(&key(), 1, &"r2".into());
    "update_status": |queue| queue.update_status(&key(), Status::Pending, NewStatus::Cancelled, NOW);
    "cancel": |queue| queue.cancel(&key(), NOW);
    "cancel_unless_subscribed": |queue| queue.cancel_unless_subscribed(&key(), &"c1".into(), NOW);
    "unsubscribe": |queue| queue.unsubscribe(&key(), &"c1".into());
    "get_by_connection": |queue| queue.get_by_connection(&"c1".into(), PageRequest::default());
    "get_by_status": |queue| queue.get_by_status(Status::Pending, PageRequest::default());
    "due": |queue| queue.due(NOW, PageRequest::default());
};

/// Creates a queue with one index shard, so that a list takes one query.
fn queue_on_one_shard(rules: &[Rule]) -> DynamoRequestQueue {
    queue_of(rules, QueueSettings { shards: 1, ..QueueSettings::default() })
}

/// DynamoDB returns this error only for writes of single items, not for reads or transactions.
#[tokio::test(start_paused = true)]
async fn single_item_write_that_conflicts_with_a_transaction_is_retried() {
    let reads = ["get", "dequeue", "get_by_connection", "get_by_status", "due"];
    let others = [&reads[..], &["enqueue (large payload)", "checkpoint (large)"]].concat();
    for (name, operation) in OPERATIONS.into_iter().filter(|(name, _)| !others.contains(name)) {
        let rules = every_call_answered(|| error_answer(400, "TransactionConflictException", "busy"));
        let error = operation(queue_on_one_shard(&rules)).await.unwrap_err();
        let made: usize = rules.iter().map(Rule::num_calls).sum();
        assert_eq!(
            (error.kind(), made),
            (StoreErrorKind::Unavailable, 3),
            "{name} fails as unavailable after three calls"
        );
        assert!(error.is_transient(), "the error of {name} is transient");
    }
}

#[tokio::test(start_paused = true)]
async fn request_operations_retry_transient_errors_and_classify_all_errors() {
    const ONCE: usize = 1;
    const RETRIED: usize = 3;
    let too_large_put = "Item size has exceeded the maximum allowed size";
    let too_large_update = "Item size to update has exceeded the maximum allowed size";
    let collection = "Collection size exceeded.";
    for (status, code, message, kind, calls) in [
        (400, "ProvisionedThroughputExceededException", "slow", StoreErrorKind::Throttled, RETRIED),
        (400, "ThrottlingException", "slow", StoreErrorKind::Throttled, RETRIED),
        (400, "RequestLimitExceeded", "slow", StoreErrorKind::Throttled, RETRIED),
        (500, "InternalServerError", "ours", StoreErrorKind::Unavailable, RETRIED),
        (503, "ServiceUnavailable", "ours", StoreErrorKind::Unavailable, RETRIED),
        (500, "SomethingNew", "ours", StoreErrorKind::Unavailable, RETRIED),
        (400, "ItemCollectionSizeLimitExceededException", collection, StoreErrorKind::TooLarge, ONCE),
        (400, "ValidationException", too_large_put, StoreErrorKind::TooLarge, ONCE),
        (400, "ValidationException", too_large_update, StoreErrorKind::TooLarge, ONCE),
        (400, "ValidationException", "Invalid UpdateExpression", StoreErrorKind::Misuse, ONCE),
        (400, "ResourceNotFoundException", "no table", StoreErrorKind::Misuse, ONCE),
        (400, "AccessDeniedException", "no right", StoreErrorKind::Misuse, ONCE),
        (400, "UnrecognizedClientException", "no token", StoreErrorKind::Misuse, ONCE),
    ] {
        for (name, operation) in OPERATIONS {
            let rules = every_call_answered(move || error_answer(status, code, message));
            let error = operation(queue_on_one_shard(&rules)).await.unwrap_err();
            let made: usize = rules.iter().map(Rule::num_calls).sum();
            assert_eq!(
                (error.kind(), made),
                (kind, calls),
                "{name} fails with {kind:?} after {calls} calls when DynamoDB returns {code}: {message}"
            );
            assert_eq!(
                error.is_transient(),
                calls == RETRIED,
                "{code} is transient exactly if {name} retries it"
            );
            assert!(
                error.source().is_some(),
                "the error of {name} after {code} has the SDK error as its source"
            );
        }
    }
}

/// From the text of an error, an operator learns the operation, the request or list, and the table.
#[tokio::test]
async fn request_operation_errors_name_operation_request_or_list_and_table() {
    let mut report = Vec::new();
    for (name, operation) in OPERATIONS {
        let rules = every_call_answered(|| error_answer(400, "ResourceNotFoundException", "no table"));
        report.push(format!("{name}: {}", operation(queue_on_one_shard(&rules)).await.unwrap_err()));
    }
    for (name, operation) in OPERATIONS {
        let rules = every_call_answered(|| condition_failed(None));
        if let Err(error) = operation(queue_on_one_shard(&rules)).await {
            report.push(format!("{name}, condition failed without an item: {error}"));
        }
    }
    insta::assert_snapshot!(report.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn request_operations_succeed_after_temporary_throttling() {
    for (name, operation) in OPERATIONS {
        let item = match name {
            "confirm_cancel" => released_by(OUR_OWNER, Status::Cancelled),
            _ => item_of(&claimed_by(OUR_OWNER)),
        };
        let answered = json_value!({
            "Attributes": wire_item(&item), "Item": wire_item(&item), "Items": [],
            "Responses": {}, "UnprocessedKeys": {},
        });
        let tries = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tries);
        let rules = every_call_answered(move || {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            if *tries < 3 { error_answer(400, "ThrottlingException", "slow") } else { http(200, &answered) }
        });
        operation(queue_on_one_shard(&rules))
            .await
            .unwrap_or_else(|error| panic!("{name} succeeds after its retries, but failed: {error}"));
        assert!(*tries.lock().unwrap() >= 3, "{name} retries after it is throttled twice");
    }
}

/// Returns the item of a request that is due `seconds` after `NOW`.
fn timed(request: &Request, seconds: u64) -> Item {
    request_item::encode(request, Some(NOW + Duration::from_secs(seconds)), 8).item
}

/// Returns the request after the sweeper has reclaimed it from its crashed second attempt.
fn reclaimed() -> Request {
    Request {
        status: Status::Pending,
        lease: None,
        runner: Runner::Worker,
        seq: Seq::start_of(3),
        history: vec![past(2)],
        ..claimed_by(OUR_OWNER)
    }
}

/// Each returned item resembles the operation's own result, but was written by a different caller.
#[tokio::test]
async fn sweep_operation_does_not_mistake_the_write_of_another_caller_for_its_own() {
    let failed = Request { status: Status::Failed, finished_at: Some(NOW), ..reclaimed() };
    for (name, left) in [
        ("nudge", timed(&request(), 61)),
        ("nudge", timed(&claimed_by(OTHER_OWNER), 60)),
        ("postpone", timed(&claimed_by(OUR_OWNER), 2)),
        ("reclaim", timed(&reclaimed(), 151)),
        ("reclaim", timed(&Request { epoch: 3, ..reclaimed() }, 150)),
        ("reclaim", timed(&failed, 150)),
        ("reclaim", timed(&claimed_by(OUR_OWNER), 150)),
    ] {
        let (_, operation) = OPERATIONS.into_iter().find(|(operation, _)| *operation == name).unwrap();
        let rule = update_answered(move || condition_failed(Some(&left)));
        assert_eq!(
            operation(queue(&rule)).await.unwrap(),
            "false",
            "{name} reports that its write had no effect"
        );
    }
}

/// A reclaim that makes its request terminal is recognized by the time of the terminal write.
#[tokio::test(start_paused = true)]
async fn terminal_reclaim_retried_after_a_lost_response_recognizes_its_own_write() {
    for (verdict, status) in [
        (ReclaimVerdict::Failed(out_of_paper()), Status::Failed),
        (ReclaimVerdict::Cancelled, Status::Cancelled),
    ] {
        for (finished_at, is_ours) in [(NOW, true), (NOW + Duration::from_millis(1), false)] {
            let seq = Seq::start_of(3).next();
            let left = Request { status, finished_at: Some(finished_at), seq, ..reclaimed() };
            let rule = update_answered_on_retry(move || condition_failed(Some(&item_of(&left))));
            let seen = seen(&claimed_by(OUR_OWNER));
            let is_reclaimed = queue(&rule).reclaim(&seen, &verdict, &[past(2)], NOW).await.unwrap();
            assert_eq!(
                (is_reclaimed, rule.num_calls()),
                (is_ours, 2),
                "a reclaim with {verdict:?} recognizes only its own write, after two calls"
            );
        }
    }
}

/// The first try takes effect but its response is lost, so the SDK's retry finds the item that the first try has
/// written.
#[tokio::test(start_paused = true)]
async fn request_write_retried_after_a_lost_response_recognizes_its_own_result() {
    let left_cancelled = Item::from_iter(
        item_of(&Request { status: Status::Cancelled, finished_at: Some(NOW), ..request() })
            .into_iter()
            .chain([("ttl".to_owned(), n(1))]),
    );
    let without_subscribers = |mut item: Item| {
        item.insert("subscribers".to_owned(), AttributeValue::M(HashMap::new()));
        item
    };
    let audience = audience_seeing(0, &["c1", "c2"]);
    let terminal = format!("{:?}", Audience { part_ttls_set: true, ..audience.clone() });
    let audience = format!("{audience:?}");
    for (name, left, outcome) in [
        ("enqueue", item_of(&request()), format!("{:?}", Enqueued::Existing(Box::new(request())))),
        ("claim", item_of(&claimed_by(OUR_OWNER)), format!("{:?}", won())),
        ("complete", released_by(OUR_OWNER, Status::Completed), terminal.clone()),
        ("fail", released_by(OUR_OWNER, Status::Failed), terminal.clone()),
        ("confirm_cancel", released_by(OUR_OWNER, Status::Cancelled), terminal),
        ("retry_later", released_by(OUR_OWNER, Status::Retrying), audience.clone()),
        // The sweeper has made the request pending after the retry was written.
        ("retry_later", released_by(OUR_OWNER, Status::Pending), audience.clone()),
        ("continue_later", released_by(OUR_OWNER, Status::Pending), audience),
        ("nudge", timed(&request(), 60), "true".to_owned()),
        ("postpone", timed(&claimed_by(OUR_OWNER), 1), "true".to_owned()),
        ("reclaim", timed(&reclaimed(), 150), "true".to_owned()),
        (
            "record_delivery",
            without_subscribers(released_by(OTHER_OWNER, Status::Completed)),
            "()".to_owned(),
        ),
        ("update_status", left_cancelled.clone(), "()".to_owned()),
        ("cancel", left_cancelled, format!("{:?}", cancelled_now())),
        ("unsubscribe", without_subscribers(item_of(&claimed_by(OUR_OWNER))), "()".to_owned()),
    ] {
        let (_, operation) = OPERATIONS.into_iter().find(|(operation, _)| *operation == name).unwrap();
        let tries = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tries);
        let rules = every_call_answered(move || {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            match *tries {
                1 => error_answer(500, "InternalServerError", "lost"),
                2 => condition_failed(Some(&left)),
                _ => http(200, &json_value!({})),
            }
        });
        let done = operation(queue_on_one_shard(&rules))
            .await
            .unwrap_or_else(|error| panic!("{name} succeeds after its retries, but failed: {error}"));
        assert_eq!(done, outcome, "{name} returns {outcome} although its first response was lost");
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_operation_fails_as_unavailable_if_the_endpoint_is_unreachable() {
    let mut nowhere = Environment::new(|name| {
        let value = if name.starts_with("AWS_ENDPOINT_URL") { "http://127.0.0.1:9" } else { "x" };
        Some(value.to_owned())
    });
    let client = AwsEnvironment::from_env(&mut nowhere, http_client()).dynamodb();
    for (name, operation) in OPERATIONS {
        let queue = DynamoRequestQueue::new(client.clone(), "requests", QueueSettings::default());
        let error = operation(queue).await.unwrap_err();
        assert_eq!(
            error.kind(),
            StoreErrorKind::Unavailable,
            "{name} is unavailable if the endpoint is unreachable"
        );
        assert!(error.is_transient(), "the error of {name} is transient");
    }
}
