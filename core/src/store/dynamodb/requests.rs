use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use serde_json::Value;

use super::codec::{Item, json, n, s, time};
use super::{request_item, store_error};
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::{
    Audience, Claimed, Enqueued, Lease, Progress, Request, RequestQueue, Status, StoreError, StoreErrorKind,
};

/// How requests are kept.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Over how many shards the `status-time` and `timers` indexes are spread. Default 8; a stage keeps what it began with.
    pub shards: u8,
    /// How long an ended request is kept for. Default 7 days.
    pub ttl: Duration,
    /// After how long a request that nobody claims is looked at. Default 60 s.
    pub unclaimed_after: Duration,
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
            lease_grace: Duration::from_secs(10),
            undelivered_after: Duration::from_secs(30),
        }
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

    /// A write that only the holder of the lease may make.
    fn fenced_update(&self, key: &RequestKey, lease: &Lease) -> UpdateItemFluentBuilder {
        self.update(key)
            .condition_expression("epoch = :epoch AND #owner = :owner AND #status = :processing")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":owner", s(&lease.owner))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .return_values(ReturnValue::UpdatedNew)
    }

    /// A write that removes `told` from the subscribers, and other attributes with them.
    fn delivery(
        &self,
        key: &RequestKey,
        lease: &Lease,
        told: &[ConnectionId],
        others: &[&str],
    ) -> UpdateItemFluentBuilder {
        let told_names = (0..told.len()).map(|n| format!("subscribers.#c{n}"));
        let removed: Vec<String> = told_names.chain(others.iter().map(ToString::to_string)).collect();
        let mut update = self
            .update(key)
            .update_expression(format!("REMOVE {}", removed.join(", ")))
            .expression_attribute_values(":epoch", n(lease.epoch));
        for (n, connection) in told.iter().enumerate() {
            update = update.expression_attribute_names(format!("#c{n}"), connection.as_str());
        }
        update
    }

    async fn end(
        &self,
        key: &RequestKey,
        lease: &Lease,
        ending: EndingValue,
        seq: Seq,
        now: Timestamp,
    ) -> Result<Audience, StoreError> {
        let EndingValue { status, attribute, value } = ending;
        let update = self
            .fenced_update(key, lease)
            .update_expression(
                "SET #status = :status, status_shard = :shard, #ending = :ending, seq = :seq, \
                 finished_at = :now, #ttl = :ttl, timer_at = :timer, subscribers = subscribers \
                 REMOVE lease_expires_at",
            )
            .expression_attribute_names("#ending", attribute)
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":status", s(status.as_str()))
            .expression_attribute_values(":shard", self.status_shard(status, key))
            .expression_attribute_values(":ending", value)
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(":ttl", n((now + self.settings.ttl).as_secs()))
            .expression_attribute_values(":timer", time(now + self.settings.undelivered_after));
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(updated),
            // Our own epoch and owner under the status that we wrote: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_ended_by(&old, lease, status) => {
                Ok(Audience { subscribers: request_item::subscribers(&old)? })
            }
            Err(refusal) => Err(self.fenced(refusal, "end", key, lease)),
        }
    }

    fn fenced<E>(&self, refusal: Refusal<E>, operation: &str, key: &RequestKey, lease: &Lease) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let context = self.context(operation, key);
        match refusal {
            Refusal::Condition(_) => StoreError::new(
                StoreErrorKind::Fenced,
                format!("{context}: epoch {} has passed", lease.epoch),
            ),
            Refusal::Other(error) => store_error(context, error),
        }
    }
}

struct EndingValue {
    status: Status,
    attribute: &'static str,
    value: AttributeValue,
}

impl RequestQueue for DynamoRequestQueue {
    async fn enqueue(&self, request: &Request) -> Result<Enqueued, StoreError> {
        let timer_at = request.created_at + self.settings.unclaimed_after;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(request_item::encode(request, Some(timer_at), self.settings.shards)))
            // Deletion lags behind the time to live: what has expired no longer counts.
            .condition_expression("attribute_not_exists(request_id) OR #ttl < :now")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":now", n(request.created_at.as_secs()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(Enqueued::New),
            Err(Refusal::Condition(Some(old))) => {
                Ok(Enqueued::Existing(Box::new(request_item::decode(&old)?)))
            }
            Err(Refusal::Condition(None)) => Err(StoreError::new(
                StoreErrorKind::Misuse,
                self.context("enqueue", &request.key()) + ": the store did not return the existing item",
            )),
            Err(Refusal::Other(error)) => Err(store_error(self.context("enqueue", &request.key()), error)),
        }
    }

    async fn get(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(request_item::key(key)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(self.context("get", key), error))?;
        Ok(found.item.as_ref().map(request_item::decode).transpose()?)
    }

    async fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Claimed, StoreError> {
        let update = self
            .update(key)
            .update_expression(
                "SET #status = :processing, status_shard = :shard, epoch = epoch + :one, \
                 attempt = attempt + :one, #owner = :owner, lease_expires_at = :lease_end, \
                 started_at = :now, timer_shard = :timer_shard, timer_at = :timer",
            )
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":shard", self.status_shard(Status::Processing, key))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":owner", s(owner))
            .expression_attribute_values(":lease_end", time(lease_end))
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(
                ":timer_shard",
                s(request_item::timer_shard(key, self.settings.shards)),
            )
            .expression_attribute_values(":timer", time(lease_end + self.settings.lease_grace))
            .return_values(ReturnValue::AllNew);
        let (item, won) = match update.send().await.map_err(Refusal::from) {
            Ok(updated) => (updated.attributes, true),
            Err(Refusal::Condition(old)) => (old, false),
            Err(Refusal::Other(error)) => return Err(store_error(self.context("claim", key), error)),
        };
        let Some(item) = item else { return Ok(Claimed::Missing) };
        // No more than this is read of what may not be ours.
        let (status, lease) = request_item::standing(&item)?;
        match lease {
            // Our token on a refused claim: the claim had succeeded, and its answer was lost.
            Some(lease) if won || (status == Status::Processing && lease.owner == owner) => {
                Ok(match request_item::decode(&item) {
                    Ok(request) => Claimed::Won(Box::new(request), lease),
                    Err(corrupt) => Claimed::Unreadable(lease, corrupt.into()),
                })
            }
            _ => Ok(Claimed::NotPending(status)),
        }
    }

    async fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        // `subscribers = subscribers` changes nothing, but has them returned among what was updated.
        let update = self
            .fenced_update(key, lease)
            .update_expression(
                "SET percentage = :percentage, progress_message = :message, progress_metadata = :metadata, \
                 seq = :seq, lease_expires_at = :lease_end, subscribers = subscribers",
            )
            .expression_attribute_values(":percentage", n(progress.percentage))
            .expression_attribute_values(":message", s(&progress.message))
            .expression_attribute_values(":metadata", json(&progress.metadata.clone().into()))
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":lease_end", time(lease_end));
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(updated),
            Err(refusal) => Err(self.fenced(refusal, "store progress of", key, lease)),
        }
    }

    async fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        seq: Seq,
        now: Timestamp,
    ) -> Result<Audience, StoreError> {
        let ending = EndingValue { status: Status::Completed, attribute: "result", value: json(result) };
        self.end(key, lease, ending, seq, now).await
    }

    async fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        seq: Seq,
        now: Timestamp,
    ) -> Result<Audience, StoreError> {
        let value = request_item::error_value(error);
        let ending = EndingValue { status: Status::Failed, attribute: "error", value };
        self.end(key, lease, ending, seq, now).await
    }

    async fn delivered(
        &self,
        key: &RequestKey,
        lease: &Lease,
        told: &[ConnectionId],
        everyone: bool,
    ) -> Result<(), StoreError> {
        if everyone {
            let update = self
                .delivery(key, lease, told, &["timer_shard", "timer_at"])
                .condition_expression("epoch = :epoch AND size(subscribers) = :told")
                .expression_attribute_values(":told", n(told.len()));
            match update.send().await.map_err(Refusal::from) {
                Ok(_) => return Ok(()),
                // Somebody has come to listen since: the timer stays for them.
                Err(Refusal::Condition(_)) => {}
                Err(Refusal::Other(error)) => {
                    return Err(store_error(self.context("mark delivery of", key), error));
                }
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        let update = self.delivery(key, lease, told, &[]).condition_expression("epoch = :epoch");
        match update.send().await.map_err(Refusal::from) {
            Ok(_) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Other(error)) => Err(store_error(self.context("mark delivery of", key), error)),
        }
    }
}

fn audience(updated: UpdateItemOutput) -> Result<Audience, StoreError> {
    let attributes = updated.attributes.unwrap_or_default();
    Ok(Audience { subscribers: request_item::subscribers(&attributes)? })
}

fn is_ended_by(old: &Item, lease: &Lease, status: Status) -> bool {
    let text = |attribute: &str| old.get(attribute).and_then(|value| value.as_s().ok());
    text("status").is_some_and(|found| found == status.as_str())
        && text("owner").is_some_and(|found| *found == lease.owner)
        && old.get("epoch") == Some(&n(lease.epoch))
}

/// Why a conditional write was refused.
enum Refusal<E> {
    /// Its condition failed, on this item.
    Condition(Option<Item>),
    /// Another reason.
    Other(SdkError<E>),
}

impl From<SdkError<UpdateItemError>> for Refusal<UpdateItemError> {
    fn from(error: SdkError<UpdateItemError>) -> Self {
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                Self::Condition(failed.item.clone())
            }
            _ => Self::Other(error),
        }
    }
}

impl From<SdkError<PutItemError>> for Refusal<PutItemError> {
    fn from(error: SdkError<PutItemError>) -> Self {
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                Self::Condition(failed.item.clone())
            }
            _ => Self::Other(error),
        }
    }
}

#[cfg(test)]
mod tests;
