use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use serde_json::Value;

use self::ending::EndingValue;
use self::lists::{CONNECTION_REQUESTS, STATUS_TIME, TIMERS, summaries};
use self::unleased::Sparing;
use super::codec::{Item, s};
use super::index::{List, Order};
use super::{request_item, store_error};
use crate::config::Environment;
use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::{
    Abandoned, Audience, Cancelled, Claimed, Delivery, Enqueued, LastReport, Lease, NewStatus, Page,
    PageRequest, PastAttempt, Progress, Request, RequestQueue, RequestSummary, Runner, Status, StoreError,
    Subscribed,
};

mod claim;
mod delivery;
mod ending;
mod enqueue;
mod leased;
mod lists;
mod overdue;
mod parts;
mod subscribe;
mod unleased;

/// How requests are kept.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Over how many shards the `status-time` and `timers` indexes are spread. Default 8; a stage keeps what it began with.
    pub shards: u8,
    /// How long an ended request is kept for. Default 7 days.
    pub ttl: Duration,
    /// After how long a request that no processor claims is looked at. Default 60 s.
    pub unclaimed_after: Duration,
    /// The same for one that the worker is to claim, or may be: longer than an asynchronous invocation may wait in Lambda's
    /// queue. Default 150 s.
    pub unclaimed_by_worker_after: Duration,
    /// How long after a lease's end the request is looked at, to allow for clocks that differ. Default 10 s.
    pub lease_grace: Duration,
    /// After how long a result that has not reached everyone is looked at. Default 30 s.
    pub undelivered_after: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            shards: 8,
            ttl: Duration::from_hours(7 * 24),
            unclaimed_after: Duration::from_secs(60),
            unclaimed_by_worker_after: Duration::from_secs(150),
            lease_grace: Duration::from_secs(10),
            undelivered_after: Duration::from_secs(30),
        }
    }
}

impl QueueSettings {
    /// Reads how requests are kept; what has no variable is as by default.
    ///
    /// | variable | meaning | unit | default | bounds |
    /// |---|---|---|---|---|
    /// | `REQUEST_TTL_S` | how long an ended request is kept | s | 604,800 (7 days) | 3,600 to 31,536,000 (a year) |
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self { ttl: environment.seconds("REQUEST_TTL_S", defaults.ttl, 3_600..=31_536_000), ..defaults }
    }
}

/// Requests in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoRequestQueue {
    client: Client,
    table: String,
    settings: QueueSettings,
}

impl DynamoRequestQueue {
    /// Requests in `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, settings: QueueSettings) -> Self {
        Self { client, table: table.into(), settings }
    }

    fn context(&self, operation: &str, key: &RequestKey) -> String {
        format!("{operation} request {key} in table {}", self.table)
    }

    async fn read(&self, key: &RequestKey) -> Result<Option<Item>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(request_item::key(key)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(self.context("get", key), error))?;
        Ok(found.item)
    }

    fn update(&self, key: &RequestKey) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(request_item::key(key)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    fn status_shard(&self, status: Status, key: &RequestKey) -> AttributeValue {
        s(request_item::status_shard(status, key, self.settings.shards))
    }

    fn timer_shard(&self, key: &RequestKey) -> AttributeValue {
        s(request_item::timer_shard(key, self.settings.shards))
    }
}

impl RequestQueue for DynamoRequestQueue {
    async fn enqueue(&self, request: &Request) -> Result<Enqueued, StoreError> {
        self.put_new(request).await
    }

    async fn get(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        match self.read(key).await? {
            Some(item) => self.whole(key, &item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn snapshot(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        match self.read(key).await? {
            Some(item) => self.standing(key, item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Claimed, StoreError> {
        self.claim_pending(key, owner, runner, now, lease_end).await
    }

    async fn dequeue(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        self.claim_oldest(owner, now, lease_end).await
    }

    async fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        self.renew_lease(key, lease, lease_end).await
    }

    async fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        self.store_progress(key, lease, progress, seq, lease_end).await
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
        self.store_checkpoint(key, lease, checkpoint, progress, seq, lease_end).await
    }

    async fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let outcome = Some(match request_item::text_or_part(result) {
            Ok(text) => ("result", s(text)),
            Err(text) => ("result_part", s(self.put_result(key, lease.epoch, text, last.at).await?)),
        });
        self.end(key, lease, EndingValue::new(Status::Completed, outcome), last).await
    }

    async fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.end(key, lease, EndingValue::failed(error).with_history(history), last).await
    }

    async fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.end(key, lease, EndingValue::new(Status::Cancelled, None), last).await
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
        self.give_back(key, lease, history, due, runner, last).await
    }

    async fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.give_on(key, lease, last).await
    }

    async fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> Result<(), StoreError> {
        self.note_delivery(key, epoch, delivery).await
    }

    async fn nudge(&self, seen: &RequestSummary, now: Timestamp) -> Result<bool, StoreError> {
        self.nudge_pending(seen, now).await
    }

    async fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.postpone(key, timer_at, until).await
    }

    async fn take_back(
        &self,
        seen: &RequestSummary,
        verdict: &Abandoned,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.take_from_holder(seen, verdict, history, now).await
    }

    async fn subscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> Result<Subscribed, StoreError> {
        self.add_subscriber(key, connection, seen, now).await
    }

    async fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> Result<(), StoreError> {
        self.note_redrive(key, epoch, as_request).await
    }

    async fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.set_status(key, from, to, now).await
    }

    async fn cancel(&self, key: &RequestKey, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.cancel_or_ask(key, Sparing::Nobody, now).await
    }

    async fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        self.cancel_or_ask(key, Sparing::AllBut(connection), now).await
    }

    async fn unsubscribe(&self, key: &RequestKey, connection: &ConnectionId) -> Result<(), StoreError> {
        self.remove_subscriber(key, connection).await
    }

    async fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        let list = self.list(&CONNECTION_REQUESTS, vec![connection.to_string()]);
        let list = List { order: Order::NewestFirst, ..list };
        summaries(list, page, |_| true).await
    }

    async fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        let list = self.list(&STATUS_TIME, self.status_shards(status));
        summaries(list, page, |found| found.status == status).await
    }

    async fn due(&self, now: Timestamp, page: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        let shards = self.shards().map(|shard| shard.to_string()).collect();
        let list = List { order: Order::OldestFirstUntil(now), ..self.list(&TIMERS, shards) };
        summaries(list, page, |found| found.timer_at.is_some_and(|at| at <= now)).await
    }
}

#[cfg(test)]
mod tests;
