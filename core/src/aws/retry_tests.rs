//! Tests of the DynamoDB client's retries: the number of attempts, the total duration, and the end of all attempts
//! when a call is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::config::retry::RetryPartition;
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use tokio::time::{Instant, sleep, timeout};

use super::tests::with_endpoints;
use super::*;
use crate::store::dynamodb::test_answers::error_answer;

/// A fake DynamoDB that counts its calls, and returns the same answer to each call.
#[derive(Clone, Debug)]
struct CountingDynamo {
    /// Answer to every call; `None` if calls are never answered.
    answer: Option<fn() -> HttpResponse>,
    calls: Arc<AtomicUsize>,
}

impl HttpConnector for CountingDynamo {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.answer {
            Some(answer) => HttpConnectorFuture::ready(Ok(answer())),
            None => HttpConnectorFuture::new(std::future::pending()),
        }
    }
}

impl HttpClient for CountingDynamo {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl CountingDynamo {
    fn new(answer: Option<fn() -> HttpResponse>) -> Self {
        Self { answer, calls: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn client(&self) -> aws_sdk_dynamodb::Client {
        let config = with_endpoints(&[]).dynamodb_config().http_client(self.clone());
        let config = config.retry_partition(RetryPartition::custom("one test").build()).build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }

    async fn get(&self) -> Option<GetItemOutput> {
        self.client().get_item().table_name("t").send().await.ok()
    }
}

#[tokio::test(start_paused = true)]
async fn failing_dynamodb_call_makes_five_attempts_within_two_seconds() {
    for answer in [
        || error_answer(500, "InternalServerError", "ours"),
        || error_answer(400, "ThrottlingException", "slow"),
    ] {
        let dynamodb = CountingDynamo::new(Some(answer));
        let started = Instant::now();
        assert!(dynamodb.get().await.is_none());
        assert_eq!(dynamodb.calls(), 5);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn unanswered_dynamodb_call_fails_after_eight_seconds_including_retries() {
    let dynamodb = CountingDynamo::new(None);
    let started = Instant::now();
    assert!(dynamodb.get().await.is_none());
    assert_eq!(
        dynamodb.calls(),
        3,
        "two attempts time out after 3 s each, and a third attempt ends at the timeout of the call"
    );
    assert_eq!(started.elapsed().as_secs(), 8);
}

/// A function drops its pending calls at the deadline of its invocation.
#[tokio::test(start_paused = true)]
async fn dropped_dynamodb_call_sends_no_more_attempts() {
    for (answer, calls) in [(None, 2), (Some((|| error_answer(500, "X", "ours")) as fn() -> _), 5)] {
        let dynamodb = CountingDynamo::new(answer);
        let result = timeout(Duration::from_secs(4), dynamodb.get()).await;
        assert_eq!(result.is_err(), answer.is_none());
        assert_eq!(dynamodb.calls(), calls);
        sleep(Duration::from_mins(10)).await;
        assert_eq!(dynamodb.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn dynamodb_call_with_a_validation_error_is_not_retried() {
    let dynamodb = CountingDynamo::new(Some(|| error_answer(400, "ValidationException", "wrong")));
    assert!(dynamodb.get().await.is_none());
    assert_eq!(dynamodb.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn write_that_conflicts_with_a_transaction_makes_five_attempts() {
    let dynamodb = CountingDynamo::new(Some(|| error_answer(400, "TransactionConflictException", "busy")));
    let client = dynamodb.client();
    client.put_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 5);
    client.update_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 10);
    client.delete_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 15);
}
