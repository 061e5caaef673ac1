//! The writes of whoever holds the lease.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::DynamoRequestQueue;
use super::ending::EndingValue;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::dynamodb::codec::{Item, json, n, s, time};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{Audience, Lease, Progress, Status, StoreError, StoreErrorKind};

/// What holds as long as nobody has claimed or ended the request since.
const FENCE: &str = "epoch = :epoch AND #owner = :owner AND #status = :processing";

impl DynamoRequestQueue {
    /// A write that only the holder of the lease may make.
    ///
    /// It returns the whole item, for the audience in it: what it does not change is returned in no other way, and a
    /// returned item costs nothing.
    fn fenced_update(&self, key: &RequestKey, lease: &Lease) -> UpdateItemFluentBuilder {
        self.update(key)
            .condition_expression(FENCE)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":owner", s(&lease.owner))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .return_values(ReturnValue::AllNew)
    }

    pub(super) async fn renew_lease(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        let update = self
            .fenced_update(key, lease)
            .update_expression("SET lease_expires_at = :lease_end")
            .expression_attribute_values(":lease_end", time(lease_end));
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(&updated.attributes.unwrap_or_default()),
            Err(refusal) => Err(self.fenced(refusal, "renew the lease of", key, lease)),
        }
    }

    pub(super) async fn store_progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        let update = self
            .fenced_update(key, lease)
            .update_expression(
                "SET percentage = :percentage, progress_message = :message, progress_metadata = :metadata, \
                 seq = :seq, lease_expires_at = :lease_end",
            )
            .expression_attribute_values(":percentage", n(progress.percentage))
            .expression_attribute_values(":message", s(&progress.message))
            .expression_attribute_values(":metadata", json(&progress.metadata.clone().into()))
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":lease_end", time(lease_end));
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(&updated.attributes.unwrap_or_default()),
            Err(refusal) => Err(self.fenced(refusal, "store progress of", key, lease)),
        }
    }

    pub(super) async fn end(
        &self,
        key: &RequestKey,
        lease: &Lease,
        ending: EndingValue,
        seq: Seq,
        now: Timestamp,
    ) -> Result<Audience, StoreError> {
        let status = ending.status;
        let update = self
            .ending(self.fenced_update(key, lease), key, ending, ":seq", now)
            .expression_attribute_values(":seq", n(seq));
        let ended = match update.send().await.map_err(Refusal::from) {
            Ok(updated) => updated.attributes.unwrap_or_default(),
            // Our own epoch and owner under the status that we wrote: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[status]) => old,
            Err(refusal) => return Err(self.fenced(refusal, "end", key, lease)),
        };
        let payload_released = self.release_at_once(key, &ended).await;
        Ok(Audience { payload_released, ..audience(&ended)? })
    }

    pub(super) async fn give_back(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        due: Timestamp,
    ) -> Result<Audience, StoreError> {
        // Above every number of this attempt, so that whoever ends the request without running it can go on from it.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let update = self
            .fenced_update(key, lease)
            .update_expression(
                "SET #status = :status, status_shard = :shard, last_error = :error, seq = :seq, \
                 timer_shard = :timer_shard, timer_at = :timer \
                 REMOVE lease_expires_at, cancel_requested",
            )
            .condition_expression(format!(
                "{FENCE} AND (attribute_not_exists(cancel_requested) OR cancel_requested = :not_requested)"
            ))
            .expression_attribute_values(":status", s(Status::Retrying.as_str()))
            .expression_attribute_values(":shard", self.status_shard(Status::Retrying, key))
            .expression_attribute_values(":error", request_item::error_value(error))
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":timer_shard", self.timer_shard(key))
            .expression_attribute_values(":timer", time(due))
            .expression_attribute_values(":not_requested", AttributeValue::Bool(false));
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(&updated.attributes.unwrap_or_default()),
            // What we wrote, or what can only have followed it: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old)))
                if is_left_by(&old, lease, &[Status::Retrying, Status::Pending]) =>
            {
                audience(&old)
            }
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[Status::Processing]) => {
                let context = self.context("hold back", key) + ": its end was asked for";
                Err(StoreError::new(StoreErrorKind::ConditionLost, context))
            }
            Err(refusal) => Err(self.fenced(refusal, "hold back", key, lease)),
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

/// Who is to be told, as an item says it.
fn audience(item: &Item) -> Result<Audience, StoreError> {
    Ok(Audience {
        subscribers: request_item::subscribers(item)?,
        cancel_requested: request_item::cancel_requested(item)?,
        payload_released: false,
    })
}

/// Whether the item stands as the lease's holder left it, in one of these statuses.
fn is_left_by(old: &Item, lease: &Lease, statuses: &[Status]) -> bool {
    let text = |attribute: &str| old.get(attribute).and_then(|value| value.as_s().ok());
    text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found))
        && text("owner").is_some_and(|found| *found == lease.owner)
        && old.get("epoch") == Some(&n(lease.epoch))
}
