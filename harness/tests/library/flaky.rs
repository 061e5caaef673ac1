//! Request queues and DynamoDB clients whose calls fail, never return, or race with another write.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use serde_json::Value;
use streamer::ids::{ConnectionId, RequestId, RequestKey};
use streamer::ports::Timestamp;
use streamer::protocol::{ErrorBody, Seq};
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer::store::{
    Audience, Cancelled, ClaimRequests, Claimed, Delivery, Enqueued, LastReport, Lease, NewStatus, Page,
    PageRequest, PastAttempt, Progress, ReadRequests, ReclaimVerdict, Request, RequestSummary, RunRequests,
    Runner, Status, StoreError, StoreErrorKind, SubmitRequests, SubscribeToRequests, Subscribed,
    SweepRequests,
};
use streamer_harness::dynamodb::DynamoDb;

use crate::world::REQUESTS;

/// Returns a request queue whose database never answers a call.
pub(crate) fn silent_queue() -> DynamoRequestQueue {
    queue_over(|_: &HttpRequest| HttpConnectorFuture::new(std::future::pending()))
}

/// Returns a request queue on a database that answers each call of the DynamoDB operation `operation` with
/// status 500.
pub(crate) fn queue_without(db: &DynamoDb, operation: &'static str) -> DynamoRequestQueue {
    let failed = || {
        let body = r#"{"__type":"InternalServerError"}"#;
        HttpConnectorFuture::ready(Ok(HttpResponse::new(StatusCode::try_from(500).unwrap(), body.into())))
    };
    queue_over(except(db, operation, failed))
}

/// Returns a DynamoDB client whose calls of the DynamoDB operation `operation` never get an answer.
pub(crate) fn client_without_answers_to(db: &DynamoDb, operation: &'static str) -> Client {
    client_over(except(db, operation, || HttpConnectorFuture::new(std::future::pending())))
}

/// Returns a function that answers each call of `operation` by `answer`, and passes every other call to the
/// database.
fn except(
    db: &DynamoDb,
    operation: &'static str,
    answer: impl Fn() -> HttpConnectorFuture + Clone + Send + Sync + 'static,
) -> impl Fn(&HttpRequest) -> HttpConnectorFuture + Clone + Send + Sync + 'static {
    let db = db.clone();
    move |request: &HttpRequest| {
        let target = request.headers().get("x-amz-target").unwrap();
        if target.ends_with(operation) {
            return answer();
        }
        let answer = db.handle(target, request.body().bytes().unwrap());
        let status = StatusCode::try_from(answer.status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, answer.body.into())))
    }
}

/// Returns a request queue on a database that runs `meanwhile` after each call of the DynamoDB operation
/// `operation`, before the caller receives the answer.
pub(crate) fn queue_with_concurrent_write<M>(
    db: &DynamoDb,
    operation: &'static str,
    meanwhile: M,
) -> DynamoRequestQueue
where
    M: Fn() + Clone + Send + Sync + 'static,
{
    let db = db.clone();
    queue_over(move |request: &HttpRequest| {
        let target = request.headers().get("x-amz-target").unwrap();
        let answer = db.handle(target, request.body().bytes().unwrap());
        if target.ends_with(operation) {
            meanwhile();
        }
        let status = StatusCode::try_from(answer.status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, answer.body.into())))
    })
}

/// Returns a request queue whose calls to DynamoDB are answered by `answer`.
fn queue_over<A>(answer: A) -> DynamoRequestQueue
where
    A: Fn(&HttpRequest) -> HttpConnectorFuture + Clone + Send + Sync + 'static,
{
    DynamoRequestQueue::new(client_over(answer), REQUESTS, QueueSettings::default())
}

/// Returns a DynamoDB client whose HTTP requests are answered by `answer`.
fn client_over<A>(answer: A) -> Client
where
    A: Fn(&HttpRequest) -> HttpConnectorFuture + Clone + Send + Sync + 'static,
{
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version_latest()
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "this test"))
        .http_client(Answers(answer))
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// HTTP client that calls a function to answer each HTTP request.
#[derive(Clone)]
struct Answers<A>(A);

impl<A> fmt::Debug for Answers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answers").finish_non_exhaustive()
    }
}

impl<A: Fn(&HttpRequest) -> HttpConnectorFuture + Send + Sync> HttpConnector for Answers<A> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        (self.0)(&request)
    }
}

impl<A> HttpClient for Answers<A>
where
    A: Fn(&HttpRequest) -> HttpConnectorFuture + Clone + Send + Sync + 'static,
{
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Request queue that makes the next writes of an attempt fail before the writes reach the table.
#[derive(Clone, Debug)]
pub(crate) struct Flaky {
    /// Request queue that receives the calls that do not fail.
    pub(crate) queue: DynamoRequestQueue,
    /// Number of upcoming calls of `renew`, `progress` and `checkpoint` that will fail.
    pub(crate) progress: Arc<AtomicU32>,
    /// Number of upcoming calls of `complete`, `fail`, `confirm_cancel`, `retry_later` and `continue_later` that
    /// will fail. These operations are the writes that end an attempt.
    pub(crate) ends: Arc<AtomicU32>,
    /// Kind of the error that a failing call returns.
    pub(crate) kind: StoreErrorKind,
}

impl Flaky {
    /// Decrements `remaining` and returns an error of the kind `self.kind`, unless `remaining` is zero.
    fn pass(&self, remaining: &AtomicU32) -> Result<(), StoreError> {
        let failing =
            remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if failing { Err(StoreError::new(self.kind, "fault injected by the test")) } else { Ok(()) }
    }
}

impl SubmitRequests for Flaky {
    async fn enqueue(&self, request: &Request) -> Result<Enqueued, StoreError> {
        self.queue.enqueue(request).await
    }

    async fn cancel(&self, key: &RequestKey, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.queue.cancel(key, now).await
    }

    async fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        self.queue.cancel_unless_subscribed(key, connection, now).await
    }

    async fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> Result<(), StoreError> {
        self.queue.record_redrive(key, epoch, as_request).await
    }
}

impl ClaimRequests for Flaky {
    async fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Claimed, StoreError> {
        self.queue.claim(key, owner, runner, now, lease_end).await
    }

    async fn dequeue(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        self.queue.dequeue(owner, now, lease_end).await
    }
}

impl RunRequests for Flaky {
    async fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.progress)?;
        self.queue.renew(key, lease, lease_end).await
    }

    async fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.progress)?;
        self.queue.progress(key, lease, progress, seq, lease_end).await
    }

    async fn checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        checkpoint: &Value,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.progress)?;
        self.queue.checkpoint(key, lease, checkpoint, progress, seq, lease_end).await
    }

    async fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.ends)?;
        self.queue.complete(key, lease, result, last).await
    }

    async fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.ends)?;
        self.queue.fail(key, lease, error, history, last).await
    }

    async fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.ends)?;
        self.queue.confirm_cancel(key, lease, last).await
    }

    async fn retry_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        history: &[PastAttempt],
        due: Timestamp,
        runner: Runner,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.ends)?;
        self.pass(&self.ends)?;
        self.queue.retry_later(key, lease, history, due, runner, last).await
    }

    async fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.pass(&self.ends)?;
        self.pass(&self.ends)?;
        self.queue.continue_later(key, lease, last).await
    }
}

impl SweepRequests for Flaky {
    async fn nudge(&self, seen: &RequestSummary, now: Timestamp) -> Result<bool, StoreError> {
        self.queue.nudge(seen, now).await
    }

    async fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.queue.postpone(key, timer_at, until).await
    }

    async fn reclaim(
        &self,
        seen: &RequestSummary,
        verdict: &ReclaimVerdict,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.queue.reclaim(seen, verdict, history, now).await
    }

    async fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.queue.update_status(key, from, to, now).await
    }
}

impl SubscribeToRequests for Flaky {
    async fn subscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> Result<Subscribed, StoreError> {
        self.queue.subscribe(key, connection, seen, now).await
    }

    async fn unsubscribe(&self, key: &RequestKey, connection: &ConnectionId) -> Result<(), StoreError> {
        self.queue.unsubscribe(key, connection).await
    }

    async fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> Result<(), StoreError> {
        self.queue.record_delivery(key, epoch, delivery).await
    }
}

impl ReadRequests for Flaky {
    async fn get(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        self.queue.get(key).await
    }

    async fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        self.queue.get_by_connection(connection, page).await
    }

    async fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        self.queue.get_by_status(status, page).await
    }

    async fn due(&self, now: Timestamp, page: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        self.queue.due(now, page).await
    }
}
