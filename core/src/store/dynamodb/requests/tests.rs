//! Tests of the DynamoDB calls that each operation of the request queue makes, and of the operation's reaction to
//! each response. The effects of the calls on a table are tested against the DynamoDB emulator, in
//! `harness/tests/library/store`.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::get_item::GetItemInput;
use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemInput, UpdateItemOutput};
use aws_smithy_mocks::{Rule, mock};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use serde_json::{Value, json as json_value};

use super::*;
use crate::aws::{AwsEnvironment, http_client};
use crate::config::Environment;
use crate::ids::ConnectionId;
use crate::protocol::{ErrorBody, ErrorCode, Seq};
use crate::store::dynamodb::codec::n;
use crate::store::dynamodb::test_answers::{client, condition_failed, error_answer, http, wire_item};
use crate::store::{
    AttemptOutcome, Audience, Cancelled, ClaimRequests as _, Claimed, Delivery, Enqueued, LastReport, Lease,
    PastAttempt, Progress, ReadRequests as _, ReclaimVerdict, Request, RunRequests as _, StoreErrorKind,
    SubmitRequests as _, SubscribeToRequests as _, Subscriber, SweepRequests as _,
};

mod errors;
mod lists;
mod overdue;
mod parts;
mod unleased;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const OUR_OWNER: &str = "00112233445566778899aabbccddeeff";
const OTHER_OWNER: &str = "ffeeddccbbaa99887766554433221100";

fn queue(rule: &Rule) -> DynamoRequestQueue {
    queue_of([rule], QueueSettings::default())
}

/// Creates a queue whose DynamoDB calls are answered by `rules`.
fn queue_of<'a>(rules: impl IntoIterator<Item = &'a Rule>, settings: QueueSettings) -> DynamoRequestQueue {
    DynamoRequestQueue::new(client(rules), "requests", settings)
}

fn request() -> Request {
    let (payload, connection) = (json_value!({"format": "pdf"}), "c1".into());
    Request {
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        max_attempts: 3,
        subscribers: vec!["c1".into(), "c2".into()],
        ..Request::new("r1".into(), "ann".into(), "acme".into(), connection, "report", payload, NOW)
    }
}

fn key() -> RequestKey {
    request().key()
}

/// Returns the lease of the request's second claim, under our owner token.
fn lease() -> Lease {
    Lease { epoch: 2, owner: OUR_OWNER.to_owned(), expires_at: NOW + Duration::from_secs(60) }
}

/// Returns the last report of the second attempt.
fn last() -> LastReport {
    LastReport { progress: half(), seq: Seq::start_of(2).next(), at: NOW }
}

fn half() -> Progress {
    Progress {
        percentage: 45.5,
        message: "half".to_owned(),
        metadata: [("rows".to_owned(), json_value!(7))].into_iter().collect(),
    }
}

/// Returns the history entry of a failed attempt.
fn past(attempt: u32) -> PastAttempt {
    PastAttempt {
        attempt,
        epoch: attempt.into(),
        started_at: Some(NOW),
        ended_at: NOW + Duration::from_secs(9),
        outcome: AttemptOutcome::Failed,
        error: out_of_paper(),
    }
}

fn out_of_paper() -> ErrorBody {
    ErrorBody::new(ErrorCode::from("OUT_OF_PAPER"), "m")
}

fn delivered_to(delivered: &[ConnectionId], is_complete: bool) -> Delivery<'_> {
    Delivery { delivered, is_complete, is_dead_letter_sent: false, part_ttls_set: false }
}

/// Returns the request after its second claim, which `owner` made.
fn claimed_by(owner: &str) -> Request {
    Request {
        status: Status::Processing,
        attempt: 2,
        epoch: 2,
        lease: Some(Lease { owner: owner.to_owned(), ..lease() }),
        started_at: Some(NOW),
        ..request()
    }
}

fn item_of(request: &Request) -> Item {
    request_item::encode(request, None, 8).item
}

/// Returns the item of a request whose second attempt, run by `owner`, set `status`. The lease is released; the owner
/// token remains.
fn released_by(owner: &str, status: Status) -> Item {
    let mut item = item_of(&Request { status, lease: None, ..claimed_by(owner) });
    item.insert("owner".into(), s(owner));
    item
}

/// Answers one update with `answer`.
fn update_answered(answer: impl Fn() -> HttpResponse + Send + Sync + 'static) -> Rule {
    mock!(Client::update_item).then_http_response(answer)
}

/// Answers the first try of an update with an internal error, as if the response was lost, and its retry with `answer`.
fn update_answered_on_retry(answer: impl Fn() -> HttpResponse + Send + Sync + 'static) -> Rule {
    mock!(Client::update_item)
        .sequence()
        .http_response(|| error_answer(500, "InternalServerError", "lost"))
        .http_response(answer)
        .build()
}

type Sent = Arc<Mutex<String>>;

/// Accepts one update, and responds with `attributes`. The returned text receives the content of the update.
fn update_accepted(attributes: Option<Item>) -> (Rule, Sent) {
    let sent = Sent::default();
    let kept = Arc::clone(&sent);
    let rule = mock!(Client::update_item).then_compute_output(move |update: &UpdateItemInput| {
        *kept.lock().unwrap() = text_of_update(update);
        UpdateItemOutput::builder().set_attributes(attributes.clone()).build()
    });
    (rule, sent)
}

fn text_of_update(update: &UpdateItemInput) -> String {
    let mut lines = vec![
        format!("table: {}", update.table_name().unwrap_or("-")),
        format!("update: {}", update.update_expression().unwrap_or("-")),
        format!("condition: {}", update.condition_expression().unwrap_or("-")),
        format!("returns: {:?}", update.return_values()),
        format!("returns on failure: {:?}", update.return_values_on_condition_check_failure()),
    ];
    lines.extend(sorted(update.key()));
    lines.extend(sorted(update.expression_attribute_names()));
    lines.extend(sorted(update.expression_attribute_values()));
    lines.join("\n")
}

fn sorted<V: std::fmt::Debug>(map: Option<&HashMap<String, V>>) -> Vec<String> {
    let map: BTreeMap<_, _> = map.into_iter().flatten().collect();
    map.into_iter().map(|(name, value)| format!("{name} = {value:?}")).collect()
}

/// Returns attributes for the response of an update: a `subscribers` map with these connections.
fn with_subscribers(connections: &[&str]) -> Option<Item> {
    let seen = connections.iter().map(|id| ((*id).to_owned(), n(1))).collect();
    Some(Item::from([("subscribers".to_owned(), AttributeValue::M(seen))]))
}

fn audience_of(connections: &[&str]) -> Audience {
    audience_seeing(1, connections)
}

/// Returns an audience of these connections, each of which has seen the frame with sequence number `seen`.
fn audience_seeing(seen: u64, connections: &[&str]) -> Audience {
    let seen = Seq::from_stored(seen);
    let subscribers = connections.iter().map(|id| Subscriber { connection: (*id).into(), seen }).collect();
    Audience { subscribers, cancel_requested: false, part_ttls_set: false }
}

fn cancelled_now() -> Cancelled {
    let subscribers = vec!["c1".into(), "c2".into()];
    Cancelled::Now { subscribers, seq: Seq::default(), epoch: 0, part_ttls_set: true }
}

/// Returns the audience of a terminal write whose request has no part items.
fn terminal_audience(connections: &[&str]) -> Audience {
    Audience { part_ttls_set: true, ..audience_of(connections) }
}

#[tokio::test]
async fn enqueue_puts_the_request_unless_an_unexpired_request_has_the_same_key() {
    let sent = Sent::default();
    let kept = Arc::clone(&sent);
    let rule = mock!(Client::put_item).then_compute_output(move |put: &PutItemInput| {
        let due = NOW + Duration::from_secs(60);
        assert_eq!(put.item(), Some(&request_item::encode(&request(), Some(due), 8).item));
        let mut lines = vec![
            format!("table: {}", put.table_name().unwrap_or("-")),
            format!("condition: {}", put.condition_expression().unwrap_or("-")),
            format!("returns on failure: {:?}", put.return_values_on_condition_check_failure()),
        ];
        lines.extend(sorted(put.expression_attribute_names()));
        lines.extend(sorted(put.expression_attribute_values()));
        *kept.lock().unwrap() = lines.join("\n");
        PutItemOutput::builder().build()
    });
    assert_eq!(queue(&rule).enqueue(&request()).await.unwrap(), Enqueued::New);
    insta::assert_snapshot!(sent.lock().unwrap(), @r#"
    table: requests
    condition: attribute_not_exists(request_id) OR (#ttl < :now AND attribute_not_exists(dead_letter))
    returns on failure: Some(AllOld)
    #ttl = "ttl"
    :now = N("1700000000")
    "#);
}

#[tokio::test]
async fn enqueue_of_an_existing_key_returns_the_stored_request() {
    let rule = mock!(Client::put_item)
        .then_http_response(|| condition_failed(Some(&item_of(&claimed_by(OTHER_OWNER)))));
    let enqueued = queue(&rule).enqueue(&request()).await.unwrap();
    assert_eq!(enqueued, Enqueued::Existing(Box::new(claimed_by(OTHER_OWNER))));
}

/// The first put succeeds but its response is lost; the retry finds the request that the first put has stored.
#[tokio::test(start_paused = true)]
async fn enqueue_retried_after_a_lost_response_returns_the_request_of_its_first_try() {
    let rule = mock!(Client::put_item)
        .sequence()
        .http_response(|| error_answer(500, "InternalServerError", "lost"))
        .http_response(|| condition_failed(Some(&item_of(&request()))))
        .build();
    let enqueued = queue(&rule).enqueue(&request()).await.unwrap();
    assert_eq!(enqueued, Enqueued::Existing(Box::new(request())));
    assert_eq!(rule.num_calls(), 2);
}

#[tokio::test]
async fn refused_enqueue_without_a_readable_existing_item_is_an_error() {
    let rule = mock!(Client::put_item).then_http_response(|| condition_failed(None));
    let error = queue(&rule).enqueue(&request()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misuse);
    let rule = mock!(Client::put_item).then_http_response(|| condition_failed(Some(&corrupt())));
    let error = queue(&rule).enqueue(&request()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

fn corrupt() -> Item {
    let mut item = item_of(&request());
    item.insert("epoch".into(), s("two"));
    item
}

fn get_answered(item: Option<Item>) -> Rule {
    mock!(Client::get_item)
        .match_requests(|get: &GetItemInput| {
            get.table_name() == Some("requests")
                && get.key() == Some(&request_item::key(&key()))
                && get.consistent_read() == Some(true)
        })
        .then_http_response(move || match &item {
            Some(item) => http(200, &json_value!({"Item": wire_item(item)})),
            None => http(200, &json_value!({})),
        })
}

#[tokio::test]
async fn get_request_is_a_consistent_read_of_the_request_item() {
    let existing = get_answered(Some(item_of(&claimed_by(OTHER_OWNER))));
    assert_eq!(queue(&existing).get(&key()).await.unwrap(), Some(claimed_by(OTHER_OWNER)));
    assert_eq!(queue(&get_answered(None)).get(&key()).await.unwrap(), None);
    let error = queue(&get_answered(Some(corrupt()))).get(&key()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

async fn claim(rule: &Rule) -> Result<Claimed, StoreError> {
    queue(rule).claim(&key(), OUR_OWNER, Runner::Processor, NOW, NOW + Duration::from_secs(60)).await
}

fn text_of(claimed: &Claimed) -> String {
    format!("{claimed:?}")
}

fn won() -> Claimed {
    Claimed::Won(Box::new(claimed_by(OUR_OWNER)), lease())
}

#[tokio::test]
async fn claim_raises_the_epoch_of_a_pending_request() {
    let (rule, sent) = update_accepted(Some(item_of(&claimed_by(OUR_OWNER))));
    assert_eq!(text_of(&claim(&rule).await.unwrap()), text_of(&won()));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn claim_retried_after_a_lost_response_recognizes_its_owner_token() {
    let rule = update_answered_on_retry(|| condition_failed(Some(&item_of(&claimed_by(OUR_OWNER)))));
    assert_eq!(text_of(&claim(&rule).await.unwrap()), text_of(&won()));
    assert_eq!(rule.num_calls(), 2);
}

#[tokio::test]
async fn request_that_is_not_pending_is_not_claimed() {
    let item_with = |status| Some(item_of(&Request { status, ..request() }));
    for (old, claimed) in [
        (None, Claimed::Missing),
        (Some(item_of(&claimed_by(OTHER_OWNER))), Claimed::NotPending(Status::Processing)),
        (item_with(Status::Retrying), Claimed::NotPending(Status::Retrying)),
        (item_with(Status::Cancelled), Claimed::NotPending(Status::Cancelled)),
        (Some(released_by(OTHER_OWNER, Status::Completed)), Claimed::NotPending(Status::Completed)),
        // A terminal request that still has our owner token is not claimed again.
        (Some(released_by(OUR_OWNER, Status::Completed)), Claimed::NotPending(Status::Completed)),
        (Some(released_by(OUR_OWNER, Status::Failed)), Claimed::NotPending(Status::Failed)),
    ] {
        let rule = update_answered(move || condition_failed(old.as_ref()));
        assert_eq!(text_of(&claim(&rule).await.unwrap()), text_of(&claimed));
    }
}

#[tokio::test]
async fn claimed_item_with_an_invalid_epoch_is_corrupt() {
    let (rule, _) = update_accepted(Some(corrupt()));
    assert_eq!(claim(&rule).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn claim_of_a_request_with_a_corrupt_payload_succeeds_and_reports_its_lease() {
    let mut item = item_of(&claimed_by(OUR_OWNER));
    item.insert("payload".to_owned(), AttributeValue::S("{".to_owned()));
    let (rule, _) = update_accepted(Some(item));
    let Claimed::Unreadable(held, error) = claim(&rule).await.unwrap() else {
        panic!("a claimed request with a corrupt payload is unreadable")
    };
    assert_eq!((held, error.kind()), (lease(), StoreErrorKind::Corrupt));
}

async fn report(rule: &Rule) -> Result<Audience, StoreError> {
    let progress = half();
    let lease_end = NOW + Duration::from_secs(90);
    queue(rule).progress(&key(), &lease(), &progress, Seq::start_of(2).next(), lease_end).await
}

#[tokio::test]
async fn stored_progress_renews_the_lease_and_returns_the_subscribers() {
    let (rule, sent) = update_accepted(with_subscribers(&["c1", "c2"]));
    assert_eq!(report(&rule).await.unwrap(), audience_of(&["c1", "c2"]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

/// The condition of a progress write still holds after the write, so a retry of the write succeeds without special
/// handling.
#[tokio::test(start_paused = true)]
async fn progress_write_retried_after_a_lost_response_succeeds() {
    let answer = || http(200, &json_value!({"Attributes": wire_item(&with_subscribers(&["c1"]).unwrap())}));
    let rule = update_answered_on_retry(answer);
    assert_eq!(report(&rule).await.unwrap(), audience_of(&["c1"]));
    assert_eq!(rule.num_calls(), 2);
}

async fn complete(rule: &Rule) -> Result<Audience, StoreError> {
    let result = json_value!({"url": "s3://reports/1"});
    queue(rule).complete(&key(), &lease(), &result, &last()).await
}

async fn fail(rule: &Rule) -> Result<Audience, StoreError> {
    let error = ErrorBody::new(ErrorCode::Timeout, "too slow").with_detail("after_s", 30);
    queue(rule).fail(&key(), &lease(), &error, &[past(2)], &last()).await
}

#[tokio::test]
async fn complete_stores_the_result_and_sets_the_delivery_timer() {
    let (rule, sent) = update_accepted(with_subscribers(&["c1"]));
    assert_eq!(complete(&rule).await.unwrap(), terminal_audience(&["c1"]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test]
async fn fail_stores_the_error_and_sets_the_delivery_timer() {
    let (rule, sent) = update_accepted(with_subscribers(&[]));
    assert_eq!(fail(&rule).await.unwrap(), terminal_audience(&[]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn terminal_write_retried_after_a_lost_response_recognizes_its_first_try() {
    let rule =
        update_answered_on_retry(|| condition_failed(Some(&released_by(OUR_OWNER, Status::Completed))));
    assert_eq!(
        complete(&rule).await.unwrap(),
        Audience { part_ttls_set: true, ..audience_seeing(0, &["c1", "c2"]) }
    );
    assert_eq!(rule.num_calls(), 2);
    let rule = update_answered_on_retry(|| condition_failed(Some(&released_by(OUR_OWNER, Status::Failed))));
    assert_eq!(
        fail(&rule).await.unwrap(),
        Audience { part_ttls_set: true, ..audience_seeing(0, &["c1", "c2"]) }
    );
    assert_eq!(rule.num_calls(), 2);
}

#[tokio::test]
async fn writes_under_a_lost_lease_are_fenced() {
    let later_epoch = |status| {
        let mut item = released_by(OUR_OWNER, status);
        item.insert("epoch".into(), n(3));
        item
    };
    let mut without_owner = released_by(OUR_OWNER, Status::Completed);
    without_owner.remove("owner");
    let lost = [
        None,
        Some(item_of(&request())),
        Some(item_of(&claimed_by(OTHER_OWNER))),
        Some(released_by(OTHER_OWNER, Status::Completed)),
        Some(released_by(OTHER_OWNER, Status::Failed)),
        Some(later_epoch(Status::Completed)),
        Some(later_epoch(Status::Failed)),
        Some(later_epoch(Status::Processing)),
        // The item has our owner token, but a status that our write does not set.
        Some(released_by(OUR_OWNER, Status::Cancelled)),
        Some(released_by(OUR_OWNER, Status::Retrying)),
        Some(without_owner),
    ];
    for old in lost {
        let rule = || {
            let old = old.clone();
            update_answered(move || condition_failed(old.as_ref()))
        };
        for written in [complete(&rule()).await, fail(&rule()).await, report(&rule()).await] {
            assert_eq!(
                written.unwrap_err().kind(),
                StoreErrorKind::Fenced,
                "a write refused because of this item is fenced: {old:?}"
            );
        }
    }
    // An attempt does not mistake a COMPLETED item for its own `fail` or `progress`, nor a FAILED item for its
    // `complete`.
    let completed = || update_answered(|| condition_failed(Some(&released_by(OUR_OWNER, Status::Completed))));
    assert_eq!(fail(&completed()).await.unwrap_err().kind(), StoreErrorKind::Fenced);
    assert_eq!(report(&completed()).await.unwrap_err().kind(), StoreErrorKind::Fenced);
    let failed = update_answered(|| condition_failed(Some(&released_by(OUR_OWNER, Status::Failed))));
    assert_eq!(complete(&failed).await.unwrap_err().kind(), StoreErrorKind::Fenced);
}

#[tokio::test]
async fn recording_a_delivery_removes_subscribers_and_with_the_last_one_the_timer() {
    let mut report = Vec::new();
    for (delivered, is_complete) in [(vec!["c1", "c2"], true), (vec!["c-1="], false), (vec![], true)] {
        let (rule, sent) = update_accepted(None);
        let delivered: Vec<ConnectionId> = delivered.into_iter().map(ConnectionId::from).collect();
        queue(&rule)
            .record_delivery(&key(), lease().epoch, delivered_to(&delivered, is_complete))
            .await
            .unwrap();
        report.push(sent.lock().unwrap().clone());
    }
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn recording_an_unchanged_delivery_makes_no_call() {
    let (rule, _) = update_accepted(None);
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_to(&[], false)).await.unwrap();
    assert_eq!(rule.num_calls(), 0);
}

#[tokio::test]
async fn recording_the_delivery_of_a_deleted_request_succeeds() {
    let rule = update_answered(|| condition_failed(None));
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_to(&["c1".into()], true)).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
}

/// If the open request lost its timer, the sweeper would never handle the request again.
#[tokio::test]
async fn open_request_without_subscribers_keeps_its_timer() {
    let mut open = item_of(&claimed_by(OUR_OWNER));
    open.insert("subscribers".into(), AttributeValue::M(HashMap::new()));
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(move || condition_failed(Some(&open)))
        .repeatedly()
        .build();
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_to(&[], true)).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
}

#[tokio::test]
async fn queue_settings_determine_shard_ttl_and_timer_of_a_terminal_request() {
    let settings = QueueSettings {
        shards: 1,
        ttl: Duration::from_secs(10),
        undelivered_after: Duration::from_secs(5),
        ..QueueSettings::default()
    };
    let (rule, sent) = update_accepted(with_subscribers(&[]));
    let queue = queue_of([&rule], settings);
    queue
        .complete(&key(), &lease(), &Value::Null, &LastReport { at: NOW, ..LastReport::default() })
        .await
        .unwrap();
    let sent = sent.lock().unwrap();
    for line in
        [r#":shard = S("COMPLETED#0")"#, r#":ttl = N("1700000010")"#, r#":timer = N("1700000005000")"#]
    {
        assert!(sent.lines().any(|sent| sent == line), "the update contains {line}:\n{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn complete_succeeds_after_a_throttled_and_an_unavailable_response() {
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(|| error_answer(400, "ProvisionedThroughputExceededException", "slow"))
        .http_status(503, None)
        .output(|| UpdateItemOutput::builder().set_attributes(with_subscribers(&["c1"])).build())
        .build();
    assert_eq!(complete(&rule).await.unwrap(), terminal_audience(&["c1"]));
    assert_eq!(rule.num_calls(), 3);
}
