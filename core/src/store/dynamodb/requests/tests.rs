//! What each operation sends, and what each answer means; what the table makes of it is tested on a real engine.

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
    Abandoned, AttemptOutcome, Audience, Cancelled, ClaimRequests as _, Claimed, Delivery, Enqueued,
    LastReport, Lease, PastAttempt, Progress, ReadRequests as _, Request, RunRequests as _, StoreErrorKind,
    SubmitRequests as _, SubscribeToRequests as _, Subscriber, SweepRequests as _,
};

mod errors;
mod lists;
mod overdue;
mod parts;
mod unleased;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const OURS: &str = "00112233445566778899aabbccddeeff";
const THEIRS: &str = "ffeeddccbbaa99887766554433221100";

fn queue(rule: &Rule) -> DynamoRequestQueue {
    queue_of([rule], QueueSettings::default())
}

/// A queue whose calls these rules answer, each those of its operation.
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

/// The lease of the second claim.
fn lease() -> Lease {
    Lease { epoch: 2, owner: OURS.to_owned(), expires_at: NOW + Duration::from_secs(60) }
}

/// What the second attempt has last said.
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

/// An attempt that has failed.
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

fn delivered_all(delivered: &[ConnectionId], is_complete: bool) -> Delivery<'_> {
    Delivery { delivered, is_complete, is_dead_letter_sent: false, parts_released: false }
}

/// The request as the second claim, made by `owner`, left it.
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

/// The item of a request whose second claim, made by `owner`, has led to `status`: its lease is gone, its owner stays.
fn ended_by(owner: &str, status: Status) -> Item {
    let mut item = item_of(&Request { status, lease: None, ..claimed_by(owner) });
    item.insert("owner".into(), s(owner));
    item
}

/// Answers one update so.
fn update_answered(answer: impl Fn() -> HttpResponse + Send + Sync + 'static) -> Rule {
    mock!(Client::update_item).then_http_response(answer)
}

/// Answers an update so, after a first answer was lost on the way.
fn update_answered_late(answer: impl Fn() -> HttpResponse + Send + Sync + 'static) -> Rule {
    mock!(Client::update_item)
        .sequence()
        .http_response(|| error_answer(500, "InternalServerError", "lost"))
        .http_response(answer)
        .build()
}

type Sent = Arc<Mutex<String>>;

/// Takes one update, and returns `attributes`.
fn update_taken(attributes: Option<Item>) -> (Rule, Sent) {
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

/// What an update returns beside what it was asked for: who is to be told.
fn with_subscribers(connections: &[&str]) -> Option<Item> {
    let times = connections.iter().map(|id| ((*id).to_owned(), n(1))).collect();
    Some(Item::from([("subscribers".to_owned(), AttributeValue::M(times))]))
}

fn audience_of(connections: &[&str]) -> Audience {
    audience_seeing(1, connections)
}

/// Who is told, each of whom has seen the frame of that number.
fn audience_seeing(seen: u64, connections: &[&str]) -> Audience {
    let seen = Seq::from_stored(seen);
    let subscribers = connections.iter().map(|id| Subscriber { connection: (*id).into(), seen }).collect();
    Audience { subscribers, cancel_requested: false, parts_released: false }
}

fn cancelled_now() -> Cancelled {
    let subscribers = vec!["c1".into(), "c2".into()];
    Cancelled::Now { subscribers, seq: Seq::default(), epoch: 0, parts_released: true }
}

/// What the write of an end returns that has nothing to release.
fn ended_before(connections: &[&str]) -> Audience {
    Audience { parts_released: true, ..audience_of(connections) }
}

#[tokio::test]
async fn a_new_request_is_put_unless_one_of_its_key_still_counts() {
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
async fn a_request_that_is_there_already_is_returned_as_it_stands() {
    let rule =
        mock!(Client::put_item).then_http_response(|| condition_failed(Some(&item_of(&claimed_by(THEIRS)))));
    let enqueued = queue(&rule).enqueue(&request()).await.unwrap();
    assert_eq!(enqueued, Enqueued::Existing(Box::new(claimed_by(THEIRS))));
}

/// The acknowledgment of a request whose first put was answered, but not to us, is the same.
#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_finds_its_own_request() {
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
async fn a_refused_put_without_a_readable_item_is_an_error() {
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

fn answered_with(item: Option<Item>) -> Rule {
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
async fn a_request_is_read_consistently_by_its_key() {
    let there = answered_with(Some(item_of(&claimed_by(THEIRS))));
    assert_eq!(queue(&there).get(&key()).await.unwrap(), Some(claimed_by(THEIRS)));
    assert_eq!(queue(&answered_with(None)).get(&key()).await.unwrap(), None);
    let error = queue(&answered_with(Some(corrupt()))).get(&key()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

async fn claim(rule: &Rule) -> Result<Claimed, StoreError> {
    queue(rule).claim(&key(), OURS, Runner::Processor, NOW, NOW + Duration::from_secs(60)).await
}

fn shown(claimed: &Claimed) -> String {
    format!("{claimed:?}")
}

fn won() -> Claimed {
    Claimed::Won(Box::new(claimed_by(OURS)), lease())
}

#[tokio::test]
async fn a_claim_raises_the_epoch_of_a_pending_request() {
    let (rule, sent) = update_taken(Some(item_of(&claimed_by(OURS))));
    assert_eq!(shown(&claim(&rule).await.unwrap()), shown(&won()));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_knows_its_own_token() {
    let rule = update_answered_late(|| condition_failed(Some(&item_of(&claimed_by(OURS)))));
    assert_eq!(shown(&claim(&rule).await.unwrap()), shown(&won()));
    assert_eq!(rule.num_calls(), 2);
}

#[tokio::test]
async fn what_is_not_pending_is_not_claimed() {
    let stands = |status| Some(item_of(&Request { status, ..request() }));
    for (old, claimed) in [
        (None, Claimed::Missing),
        (Some(item_of(&claimed_by(THEIRS))), Claimed::NotPending(Status::Processing)),
        (stands(Status::Retrying), Claimed::NotPending(Status::Retrying)),
        (stands(Status::Cancelled), Claimed::NotPending(Status::Cancelled)),
        (Some(ended_by(THEIRS, Status::Completed)), Claimed::NotPending(Status::Completed)),
        // Our own token on a request that has ended since gives no right to run it again.
        (Some(ended_by(OURS, Status::Completed)), Claimed::NotPending(Status::Completed)),
        (Some(ended_by(OURS, Status::Failed)), Claimed::NotPending(Status::Failed)),
    ] {
        let rule = update_answered(move || condition_failed(old.as_ref()));
        assert_eq!(shown(&claim(&rule).await.unwrap()), shown(&claimed));
    }
}

#[tokio::test]
async fn an_item_that_says_nothing_of_whose_it_is_is_corrupt() {
    let (rule, _) = update_taken(Some(corrupt()));
    assert_eq!(claim(&rule).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn an_item_that_is_ours_and_cannot_be_read_is_told_from_one_that_is_not_ours() {
    let mut item = item_of(&claimed_by(OURS));
    item.insert("payload".to_owned(), AttributeValue::S("{".to_owned()));
    let (rule, _) = update_taken(Some(item));
    let Claimed::Unreadable(held, error) = claim(&rule).await.unwrap() else { panic!("it was read") };
    assert_eq!((held, error.kind()), (lease(), StoreErrorKind::Corrupt));
}

async fn report(rule: &Rule) -> Result<Audience, StoreError> {
    let progress = half();
    let lease_end = NOW + Duration::from_secs(90);
    queue(rule).progress(&key(), &lease(), &progress, Seq::start_of(2).next(), lease_end).await
}

#[tokio::test]
async fn stored_progress_renews_the_lease_and_says_who_is_told() {
    let (rule, sent) = update_taken(with_subscribers(&["c1", "c2"]));
    assert_eq!(report(&rule).await.unwrap(), audience_of(&["c1", "c2"]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

/// Its condition still holds after its own write: nothing has to be recognised.
#[tokio::test(start_paused = true)]
async fn progress_whose_answer_was_lost_is_stored_again() {
    let answer = || http(200, &json_value!({"Attributes": wire_item(&with_subscribers(&["c1"]).unwrap())}));
    let rule = update_answered_late(answer);
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
async fn a_completed_request_keeps_its_result_and_waits_for_delivery() {
    let (rule, sent) = update_taken(with_subscribers(&["c1"]));
    assert_eq!(complete(&rule).await.unwrap(), ended_before(&["c1"]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test]
async fn a_failed_request_keeps_its_error_and_waits_for_delivery() {
    let (rule, sent) = update_taken(with_subscribers(&[]));
    assert_eq!(fail(&rule).await.unwrap(), ended_before(&[]));
    insta::assert_snapshot!(sent.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_ending_whose_answer_was_lost_knows_its_own_lease_and_status() {
    let rule = update_answered_late(|| condition_failed(Some(&ended_by(OURS, Status::Completed))));
    assert_eq!(
        complete(&rule).await.unwrap(),
        Audience { parts_released: true, ..audience_seeing(0, &["c1", "c2"]) }
    );
    assert_eq!(rule.num_calls(), 2);
    let rule = update_answered_late(|| condition_failed(Some(&ended_by(OURS, Status::Failed))));
    assert_eq!(
        fail(&rule).await.unwrap(),
        Audience { parts_released: true, ..audience_seeing(0, &["c1", "c2"]) }
    );
    assert_eq!(rule.num_calls(), 2);
}

#[tokio::test]
async fn whoever_has_lost_the_lease_is_fenced() {
    let later_epoch = |status| {
        let mut item = ended_by(OURS, status);
        item.insert("epoch".into(), n(3));
        item
    };
    let mut without_owner = ended_by(OURS, Status::Completed);
    without_owner.remove("owner");
    let lost = [
        None,
        Some(item_of(&request())),
        Some(item_of(&claimed_by(THEIRS))),
        Some(ended_by(THEIRS, Status::Completed)),
        Some(ended_by(THEIRS, Status::Failed)),
        Some(later_epoch(Status::Completed)),
        Some(later_epoch(Status::Failed)),
        Some(later_epoch(Status::Processing)),
        // The same claim, ended by somebody else in another way.
        Some(ended_by(OURS, Status::Cancelled)),
        Some(ended_by(OURS, Status::Retrying)),
        Some(without_owner),
    ];
    for old in lost {
        let rule = || {
            let old = old.clone();
            update_answered(move || condition_failed(old.as_ref()))
        };
        for ended in [complete(&rule()).await, fail(&rule()).await, report(&rule()).await] {
            assert_eq!(ended.unwrap_err().kind(), StoreErrorKind::Fenced, "{old:?}");
        }
    }
    // A result is no error, nor the other way round; and neither is progress.
    let completed = || update_answered(|| condition_failed(Some(&ended_by(OURS, Status::Completed))));
    assert_eq!(fail(&completed()).await.unwrap_err().kind(), StoreErrorKind::Fenced);
    assert_eq!(report(&completed()).await.unwrap_err().kind(), StoreErrorKind::Fenced);
    let failed = update_answered(|| condition_failed(Some(&ended_by(OURS, Status::Failed))));
    assert_eq!(complete(&failed).await.unwrap_err().kind(), StoreErrorKind::Fenced);
}

#[tokio::test]
async fn who_was_reached_is_taken_off_and_the_timer_with_the_last() {
    let mut report = Vec::new();
    for (reached, everyone) in [(vec!["c1", "c2"], true), (vec!["c-1="], false), (vec![], true)] {
        let (rule, sent) = update_taken(None);
        let reached: Vec<ConnectionId> = reached.into_iter().map(ConnectionId::from).collect();
        queue(&rule).record_delivery(&key(), lease().epoch, delivered_all(&reached, everyone)).await.unwrap();
        report.push(sent.lock().unwrap().clone());
    }
    insta::assert_snapshot!(report.join("\n\n"));
}

#[tokio::test]
async fn a_delivery_that_reached_nobody_makes_no_call() {
    let (rule, _) = update_taken(None);
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_all(&[], false)).await.unwrap();
    assert_eq!(rule.num_calls(), 0);
}

#[tokio::test]
async fn a_delivery_for_a_request_that_has_expired_since_is_nothing_to_complain_of() {
    let rule = update_answered(|| condition_failed(None));
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_all(&["c1".into()], true)).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
}

/// Its timer is what has it looked at again.
#[tokio::test]
async fn a_request_that_has_not_ended_keeps_its_timer_though_nobody_listens() {
    let mut open = item_of(&claimed_by(OURS));
    open.insert("subscribers".into(), AttributeValue::M(HashMap::new()));
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(move || condition_failed(Some(&open)))
        .repeatedly()
        .build();
    queue(&rule).record_delivery(&key(), lease().epoch, delivered_all(&[], true)).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
}

#[tokio::test]
async fn settings_reach_the_items() {
    let settings = QueueSettings {
        shards: 1,
        ttl: Duration::from_secs(10),
        undelivered_after: Duration::from_secs(5),
        ..QueueSettings::default()
    };
    let (rule, sent) = update_taken(with_subscribers(&[]));
    let queue = queue_of([&rule], settings);
    queue
        .complete(&key(), &lease(), &Value::Null, &LastReport { at: NOW, ..LastReport::default() })
        .await
        .unwrap();
    let sent = sent.lock().unwrap();
    for line in
        [r#":shard = S("COMPLETED#0")"#, r#":ttl = N("1700000010")"#, r#":timer = N("1700000005000")"#]
    {
        assert!(sent.lines().any(|sent| sent == line), "{line} is not in\n{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_that_is_taken_on_retry_succeeds() {
    let rule = mock!(Client::update_item)
        .sequence()
        .http_response(|| error_answer(400, "ProvisionedThroughputExceededException", "slow"))
        .http_status(503, None)
        .output(|| UpdateItemOutput::builder().set_attributes(with_subscribers(&["c1"])).build())
        .build();
    assert_eq!(complete(&rule).await.unwrap(), ended_before(&["c1"]));
    assert_eq!(rule.num_calls(), 3);
}
