//! How often a call is made, for how long, and that it ends with whoever asked for it.

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

/// A DynamoDB that gives every call the same answer, or none, and counts them.
#[derive(Clone, Debug)]
struct Counted {
    answer: Option<fn() -> HttpResponse>,
    calls: Arc<AtomicUsize>,
}

impl HttpConnector for Counted {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.answer {
            Some(answer) => HttpConnectorFuture::ready(Ok(answer())),
            None => HttpConnectorFuture::new(std::future::pending()),
        }
    }
}

impl HttpClient for Counted {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl Counted {
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
async fn a_call_that_fails_is_made_five_times_within_two_seconds() {
    for answer in [
        || error_answer(500, "InternalServerError", "ours"),
        || error_answer(400, "ThrottlingException", "slow"),
    ] {
        let dynamodb = Counted::new(Some(answer));
        let started = Instant::now();
        assert!(dynamodb.get().await.is_none());
        assert_eq!(dynamodb.calls(), 5);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_answers_ends_after_eight_seconds_with_all_its_retries() {
    let dynamodb = Counted::new(None);
    let started = Instant::now();
    assert!(dynamodb.get().await.is_none());
    assert_eq!(dynamodb.calls(), 3, "3 s each, as long as there is time");
    assert_eq!(started.elapsed().as_secs(), 8);
}

/// As where an invocation's time is up.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_a_call_is_given_up() {
    for (answer, calls) in [(None, 2), (Some((|| error_answer(500, "X", "ours")) as fn() -> _), 5)] {
        let dynamodb = Counted::new(answer);
        let given_up = timeout(Duration::from_secs(4), dynamodb.get()).await;
        assert_eq!(given_up.is_err(), answer.is_none());
        assert_eq!(dynamodb.calls(), calls);
        sleep(Duration::from_mins(10)).await;
        assert_eq!(dynamodb.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_is_made_once() {
    let dynamodb = Counted::new(Some(|| error_answer(400, "ValidationException", "wrong")));
    assert!(dynamodb.get().await.is_none());
    assert_eq!(dynamodb.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_a_transaction_is_in_the_way_of_is_made_again() {
    let dynamodb = Counted::new(Some(|| error_answer(400, "TransactionConflictException", "busy")));
    let client = dynamodb.client();
    client.put_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 5);
    client.update_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 10);
    client.delete_item().table_name("t").send().await.unwrap_err();
    assert_eq!(dynamodb.calls(), 15);
}
