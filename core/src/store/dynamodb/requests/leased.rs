//! The writes of whoever holds the lease.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use serde_json::Value;

use super::DynamoRequestQueue;
use super::ending::EndingValue;
use super::parts::transaction_error;
#[cfg(feature = "seeded-bugs")]
use crate::bugs::{self, Bug};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{Item, json, n, s, time};
use crate::store::dynamodb::{Refusal, part_item, request_item, store_error};
use crate::store::{
    Audience, LastReport, Lease, PastAttempt, Progress, Runner, Status, StoreError, StoreErrorKind,
};

/// What holds as long as nobody has claimed or ended the request since.
const FENCE: &str = "epoch = :epoch AND #owner = :owner AND #status = :processing";

/// [`FENCE`], unless it is left open on purpose.
fn fence() -> &'static str {
    #[cfg(feature = "seeded-bugs")]
    if bugs::is(Bug::NoEpochCheck) {
        return "(epoch = :epoch AND #owner = :owner OR #status = :processing)";
    }
    FENCE
}

/// What holds unless the holder has written something later: each of its writes asks for a later end of the lease. A write
/// that was given up on and arrives all the same would else take back what has followed it.
const NOTHING_LATER: &str = "lease_expires_at <= :lease_end";

/// What holds unless the request's end is asked for, where `:not_requested` is false.
pub(super) const NOT_ASKED: &str =
    "(attribute_not_exists(cancel_requested) OR cancel_requested = :not_requested)";

/// What [`with_progress`] gives values for.
const SET_PROGRESS: &str =
    "percentage = :percentage, progress_message = :message, progress_metadata = :metadata";

/// What [`hand_back`](DynamoRequestQueue::hand_back) gives values for.
const SET_WAITING: &str =
    "#status = :status, status_shard = :shard, timer_shard = :timer_shard, timer_at = :timer";

fn with_progress(update: UpdateItemFluentBuilder, progress: &Progress) -> UpdateItemFluentBuilder {
    update
        .expression_attribute_values(":percentage", n(progress.percentage))
        .expression_attribute_values(":message", s(&progress.message))
        .expression_attribute_values(":metadata", json(&progress.metadata.clone().into()))
}

impl DynamoRequestQueue {
    /// A write that only the holder of the lease may make.
    ///
    /// It returns the whole item, for the audience in it: what it does not change is returned in no other way, and a
    /// returned item costs nothing.
    fn fenced_update(&self, key: &RequestKey, lease: &Lease) -> UpdateItemFluentBuilder {
        self.update(key)
            .condition_expression(fence())
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":owner", s(&lease.owner))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .return_values(ReturnValue::AllNew)
    }

    /// A write that renews the lease until then.
    fn renewing_update(&self, key: &RequestKey, lease: &Lease, until: Timestamp) -> UpdateItemFluentBuilder {
        self.fenced_update(key, lease)
            .condition_expression(format!("{} AND {NOTHING_LATER}", fence()))
            .expression_attribute_values(":lease_end", time(until))
    }

    /// What has come of a write that renews the lease.
    async fn renewed(
        &self,
        update: UpdateItemFluentBuilder,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
    ) -> Result<Audience, StoreError> {
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(&updated.attributes.unwrap_or_default()),
            Err(refusal) => Err(self.not_renewed(refusal, operation, key, lease)),
        }
    }

    fn not_renewed<E>(
        &self,
        refusal: Refusal<E>,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
    ) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match &refusal {
            Refusal::Condition(Some(old)) if is_left_by(old, lease, &[Status::Processing]) => {
                let context = self.context(operation, key) + ": a later write of the same attempt stands";
                StoreError::new(StoreErrorKind::ConditionLost, context)
            }
            Refusal::Condition(_) | Refusal::Other(_) => self.fenced(refusal, operation, key, lease),
        }
    }

    pub(super) async fn renew_lease(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        let update = self
            .renewing_update(key, lease, lease_end)
            .update_expression("SET lease_expires_at = :lease_end");
        self.renewed(update, "renew the lease of", key, lease).await
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
            .renewing_update(key, lease, lease_end)
            .update_expression(format!("SET {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end"))
            .expression_attribute_values(":seq", n(seq));
        self.renewed(with_progress(update, progress), "store progress of", key, lease).await
    }

    /// A checkpoint that is big lies in a part: then both are written in one transaction, so that no attempt that is fenced
    /// overwrites what a later one goes on from.
    pub(super) async fn store_checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        checkpoint: &Value,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        const OPERATION: &str = "store the checkpoint of";
        let text = match request_item::text_or_part(checkpoint) {
            Ok(text) => {
                let update = self
                    .renewing_update(key, lease, lease_end)
                    .update_expression(format!(
                        "SET checkpoint = :checkpoint, {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end"
                    ))
                    .expression_attribute_values(":checkpoint", s(text))
                    .expression_attribute_values(":seq", n(seq));
                return self.renewed(with_progress(update, progress), OPERATION, key, lease).await;
            }
            Err(text) => text,
        };
        self.store_big_checkpoint(key, lease, text, progress, seq, lease_end).await?;
        // Transactions return nothing of what they wrote: who listens is found by the write that follows.
        self.renew_lease(key, lease, lease_end).await
    }

    async fn store_big_checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        text: String,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the checkpoint of";
        let misuse = |error: BuildError| {
            StoreError::new(StoreErrorKind::Misuse, self.context(OPERATION, key)).with_source(error)
        };
        let name = Update::builder()
            .table_name(&self.table)
            .set_key(Some(request_item::key(key)))
            .update_expression(format!(
                "SET checkpoint_part = :part, {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end \
                 REMOVE checkpoint"
            ))
            .condition_expression(format!("{} AND {NOTHING_LATER}", fence()))
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":owner", s(&lease.owner))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":part", s(part_item::CHECKPOINT_PART))
            .expression_attribute_values(":percentage", n(progress.percentage))
            .expression_attribute_values(":message", s(&progress.message))
            .expression_attribute_values(":metadata", json(&progress.metadata.clone().into()))
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":lease_end", time(lease_end))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(misuse)?;
        let part = Put::builder()
            .table_name(&self.table)
            .set_item(Some(part_item::encode(key, part_item::CHECKPOINT_PART, text, None)))
            .build()
            .map_err(misuse)?;
        let writes = [
            TransactWriteItem::builder().update(name).build(),
            TransactWriteItem::builder().put(part).build(),
        ];
        let transaction = self.client.transact_write_items().set_transact_items(Some(writes.into()));
        match transaction.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(()),
            Err(Refusal::Other(error)) => Err(transaction_error(self.context(OPERATION, key), error)),
            Err(refusal @ Refusal::Condition(_)) => Err(self.not_renewed(refusal, OPERATION, key, lease)),
        }
    }

    pub(super) async fn end(
        &self,
        key: &RequestKey,
        lease: &Lease,
        mut ending: EndingValue,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let status = ending.status;
        ending.beside.extend([
            ("percentage", n(last.progress.percentage)),
            ("progress_message", s(&last.progress.message)),
            ("progress_metadata", json(&last.progress.metadata.clone().into())),
        ]);
        let mut update = self
            .ending(self.fenced_update(key, lease), key, ending, ":seq", last.at)
            .expression_attribute_values(":seq", n(last.seq));
        if status == Status::Failed {
            // What its user wanted to end has not failed for good, and is no dead letter.
            update = update
                .condition_expression(format!("{} AND {NOT_ASKED}", fence()))
                .expression_attribute_values(":not_requested", AttributeValue::Bool(false));
        }
        #[cfg(feature = "seeded-bugs")]
        let update = if bugs::is(Bug::TerminalWriteUnconditional) {
            // With the right one in it, since DynamoDB refuses values that nothing names.
            let right = update.get_condition_expression().clone().unwrap_or_default();
            update.condition_expression(format!("attribute_exists(request_id) OR {right}"))
        } else {
            update
        };
        let ended = match update.send().await.map_err(Refusal::from) {
            Ok(updated) => updated.attributes.unwrap_or_default(),
            // Our own epoch and owner under the status that we wrote: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[status]) => old,
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[Status::Processing]) => {
                return Err(self.end_asked_for("end", key));
            }
            Err(refusal) => return Err(self.fenced(refusal, "end", key, lease)),
        };
        let parts_released = self.release_at_once(key, &ended).await;
        Ok(Audience { parts_released, ..audience(&ended)? })
    }

    pub(super) async fn give_back(
        &self,
        key: &RequestKey,
        lease: &Lease,
        history: &[PastAttempt],
        due: Timestamp,
        runner: Runner,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        // Above every number of this attempt, so that whoever ends the request without running it can go on from it.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let set_runner = match runner {
            Runner::Processor => "",
            Runner::Worker => ", runner = :runner",
        };
        let set_attempt = "";
        #[cfg(feature = "seeded-bugs")]
        let set_attempt = bugs::instead(Bug::RetryLosesAttempts, ", attempt = :uncounted", set_attempt);
        let mut update = self
            .hand_back(key, lease, Status::Retrying, due)
            .update_expression(format!(
                "SET {SET_WAITING}, {SET_PROGRESS}, seq = :seq, history = :history{set_runner}{set_attempt} \
                 REMOVE lease_expires_at, cancel_requested"
            ))
            .expression_attribute_values(":history", request_item::history_value(history))
            .expression_attribute_values(":seq", n(seq));
        #[cfg(feature = "seeded-bugs")]
        if bugs::is(Bug::RetryLosesAttempts) {
            update = update.expression_attribute_values(":uncounted", n(0));
        }
        if runner == Runner::Worker {
            update = update.expression_attribute_values(":runner", s(request_item::WORKER));
        }
        let left_as = [Status::Retrying, Status::Pending];
        self.handed_back(with_progress(update, &last.progress), "hold back", key, lease, &left_as).await
    }

    /// The attempt is not over: the claim that follows counts it again.
    pub(super) async fn give_on(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let update = self
            .hand_back(key, lease, Status::Pending, last.at + self.settings.unclaimed_by_worker_after)
            .update_expression(format!(
                "SET {SET_WAITING}, {SET_PROGRESS}, seq = :seq, runner = :runner, attempt = attempt - :one, \
                 continuations = if_not_exists(continuations, :zero) + :one \
                 REMOVE lease_expires_at, cancel_requested"
            ))
            .expression_attribute_values(":runner", s(request_item::WORKER))
            .expression_attribute_values(":seq", n(last.seq))
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":one", n(1));
        let update = with_progress(update, &last.progress);
        self.handed_back(update, "continue", key, lease, &[Status::Pending]).await
    }

    /// A write by which the lease's holder has the request wait until somebody looks at it at `timer`.
    fn hand_back(
        &self,
        key: &RequestKey,
        lease: &Lease,
        status: Status,
        timer: Timestamp,
    ) -> UpdateItemFluentBuilder {
        let not_asked = NOT_ASKED;
        #[cfg(feature = "seeded-bugs")]
        let not_asked = bugs::instead(
            Bug::CancelForgotten,
            "(attribute_exists(request_id) OR cancel_requested = :not_requested)",
            not_asked,
        );
        self.fenced_update(key, lease)
            .condition_expression(format!("{} AND {not_asked}", fence()))
            .expression_attribute_values(":status", s(status.as_str()))
            .expression_attribute_values(":shard", self.status_shard(status, key))
            .expression_attribute_values(":timer_shard", self.timer_shard(key))
            .expression_attribute_values(":timer", time(timer))
            .expression_attribute_values(":not_requested", AttributeValue::Bool(false))
    }

    async fn handed_back(
        &self,
        update: UpdateItemFluentBuilder,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
        left_as: &[Status],
    ) -> Result<Audience, StoreError> {
        match update.send().await.map_err(Refusal::from) {
            Ok(updated) => audience(&updated.attributes.unwrap_or_default()),
            // What we wrote, or what can only have followed it: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, left_as) => audience(&old),
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[Status::Processing]) => {
                Err(self.end_asked_for(operation, key))
            }
            Err(refusal) => Err(self.fenced(refusal, operation, key, lease)),
        }
    }

    fn end_asked_for(&self, operation: &str, key: &RequestKey) -> StoreError {
        let context = self.context(operation, key) + ": its end was asked for";
        StoreError::new(StoreErrorKind::ConditionLost, context)
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
        subscribers: request_item::listeners(item)?,
        cancel_requested: request_item::cancel_requested(item)?,
        parts_released: false,
    })
}

/// Whether the item stands as the lease's holder left it, in one of these statuses.
fn is_left_by(old: &Item, lease: &Lease, statuses: &[Status]) -> bool {
    let text = |attribute: &str| old.get(attribute).and_then(|value| value.as_s().ok());
    #[cfg(feature = "seeded-bugs")]
    if bugs::is(Bug::ForeignEndTaken) {
        return text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found));
    }
    text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found))
        && text("owner").is_some_and(|found| *found == lease.owner)
        && old.get("epoch") == Some(&n(lease.epoch))
}
