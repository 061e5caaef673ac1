use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use super::DynamoRequestQueue;
use super::terminal::{CANCEL_NOT_REQUESTED, TerminalWrite};
use crate::bugs::{self, Bug};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};
use crate::store::dynamodb::codec::{Item, json, n, s, time};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::write::{Put, Update, transact};
use crate::store::dynamodb::{part_item, request_item};
use crate::store::{
    Audience, LastReport, Lease, PastAttempt, Progress, RunRequests, Runner, Status, StoreError,
    StoreErrorKind,
};

/// What holds as long as nobody has claimed or ended the request since.
const FENCE: &str = "epoch = :epoch AND #owner = :owner AND #status = :processing";

/// [`FENCE`], unless it is left open on purpose.
fn fence() -> &'static str {
    if bugs::is(Bug::NoEpochCheck) {
        return "(epoch = :epoch AND #owner = :owner OR #status = :processing)";
    }
    FENCE
}

/// What holds unless the holder has written something later: each of its writes asks for a later end of the lease. Without it, a
/// write that was given up on and arrives late would take back the writes that followed it.
const NOTHING_LATER: &str = "lease_expires_at <= :lease_end";

/// What [`with_progress`] gives values for.
const SET_PROGRESS: &str =
    "percentage = :percentage, progress_message = :message, progress_metadata = :metadata";

/// What [`leaving_update`](DynamoRequestQueue::leaving_update) gives values for.
const SET_WAITING: &str =
    "#status = :status, status_shard = :shard, timer_shard = :timer_shard, timer_at = :timer";

fn with_progress(update: Update, progress: &Progress) -> Update {
    update
        .value(":percentage", n(progress.percentage))
        .value(":message", s(&progress.message))
        .value(":metadata", json(&progress.metadata.clone().into()))
}

/// The audience that an item names.
fn audience(item: &Item) -> Result<Audience, StoreError> {
    Ok(Audience {
        subscribers: request_item::subscribers_with_seen(item)?,
        cancel_requested: request_item::cancel_requested(item)?,
        parts_released: false,
    })
}

/// Whether the item is as the lease's holder left it, in one of these statuses.
fn is_left_by(old: &Item, lease: &Lease, statuses: &[Status]) -> bool {
    let text = |attribute: &str| old.get(attribute).and_then(|value| value.as_s().ok());
    if bugs::is(Bug::ForeignEndTaken) {
        return text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found));
    }
    text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found))
        && text("owner").is_some_and(|found| *found == lease.owner)
        && old.get("epoch") == Some(&n(lease.epoch))
}

impl DynamoRequestQueue {
    /// A write that only the holder of the lease may make.
    ///
    /// It returns the whole item, for the audience in it: what it does not change is returned in no other way, and a
    /// returned item costs nothing.
    fn fenced_update(&self, key: &RequestKey, lease: &Lease) -> Update {
        self.update(key)
            .condition(fence())
            .name("#owner", "owner")
            .name("#status", "status")
            .value(":epoch", n(lease.epoch))
            .value(":owner", s(&lease.owner))
            .value(":processing", s(Status::Processing.as_str()))
            .returning_item()
    }

    fn fenced(&self, refusal: Refusal, operation: &str, key: &RequestKey, lease: &Lease) -> StoreError {
        let context = self.context(operation, key);
        match refusal {
            Refusal::Condition(_) => StoreError::new(
                StoreErrorKind::Fenced,
                format!("{context}: epoch {} has passed", lease.epoch),
            ),
            Refusal::Other(failure) => failure.in_context(context),
        }
    }

    /// A write that prolongs the lease.
    fn renewing_update(&self, key: &RequestKey, lease: &Lease, lease_end: Timestamp) -> Update {
        self.fenced_update(key, lease)
            .condition(format!("{} AND {NOTHING_LATER}", fence()))
            .value(":lease_end", time(lease_end))
    }

    async fn send_renewing(
        &self,
        update: Update,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
    ) -> Result<Audience, StoreError> {
        match update.send(&self.client).await {
            Ok(updated) => audience(&updated),
            Err(refusal) => Err(self.not_renewed(refusal, operation, key, lease)),
        }
    }

    fn not_renewed(&self, refusal: Refusal, operation: &str, key: &RequestKey, lease: &Lease) -> StoreError {
        match &refusal {
            Refusal::Condition(Some(old)) if is_left_by(old, lease, &[Status::Processing]) => {
                let context = self.context(operation, key) + ": a later write of the same attempt stands";
                StoreError::new(StoreErrorKind::ConditionLost, context)
            }
            Refusal::Condition(_) | Refusal::Other(_) => self.fenced(refusal, operation, key, lease),
        }
    }

    /// A write by which the holder gives up the lease, and the request waits until `timer`.
    fn leaving_update(&self, key: &RequestKey, lease: &Lease, status: Status, timer: Timestamp) -> Update {
        let not_requested = bugs::instead(
            Bug::CancelForgotten,
            "(attribute_exists(request_id) OR cancel_requested = :not_requested)",
            CANCEL_NOT_REQUESTED,
        );
        self.fenced_update(key, lease)
            .condition(format!("{} AND {not_requested}", fence()))
            .value(":status", s(status.as_str()))
            .value(":shard", self.status_shard(status, key))
            .value(":timer_shard", self.timer_shard(key))
            .value(":timer", time(timer))
            .value(":not_requested", AttributeValue::Bool(false))
    }

    async fn send_leaving(
        &self,
        update: Update,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
        left_as: &[Status],
    ) -> Result<Audience, StoreError> {
        match update.send(&self.client).await {
            Ok(updated) => audience(&updated),
            // As we wrote it, or as only a later write can have made it: ours had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, left_as) => audience(&old),
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[Status::Processing]) => {
                Err(self.cancel_was_requested(operation, key))
            }
            Err(refusal) => Err(self.fenced(refusal, operation, key, lease)),
        }
    }

    fn cancel_was_requested(&self, operation: &str, key: &RequestKey) -> StoreError {
        let context = self.context(operation, key) + ": its end was asked for";
        StoreError::new(StoreErrorKind::ConditionLost, context)
    }

    async fn end(
        &self,
        key: &RequestKey,
        lease: &Lease,
        write: TerminalWrite,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let status = write.status;
        let write = write.with([
            ("percentage", n(last.progress.percentage)),
            ("progress_message", s(&last.progress.message)),
            ("progress_metadata", json(&last.progress.metadata.clone().into())),
        ]);
        let mut update = self
            .terminal(self.fenced_update(key, lease), key, write, ":seq", last.at)
            .value(":seq", n(last.seq));
        let mut condition = fence().to_owned();
        if status == Status::Failed {
            // A request that its user wanted to cancel has not failed for good, and is no dead letter.
            condition = format!("{condition} AND {CANCEL_NOT_REQUESTED}");
            update = update.value(":not_requested", AttributeValue::Bool(false));
        }
        let condition = bugs::instead(
            Bug::TerminalWriteUnconditional,
            // With the right one in it, since DynamoDB refuses values that nothing names.
            format!("attribute_exists(request_id) OR {condition}"),
            condition,
        );
        let ended = match update.condition(condition).send(&self.client).await {
            Ok(updated) => updated,
            // Our own epoch and owner under the status that we wrote: the write had succeeded, and its answer was lost.
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[status]) => old,
            Err(Refusal::Condition(Some(old))) if is_left_by(&old, lease, &[Status::Processing]) => {
                return Err(self.cancel_was_requested("end", key));
            }
            Err(refusal) => return Err(self.fenced(refusal, "end", key, lease)),
        };
        let parts_released = self.release_at_once(key, &ended).await;
        Ok(Audience { parts_released, ..audience(&ended)? })
    }
}

impl RunRequests for DynamoRequestQueue {
    async fn renew(
        &self,
        key: &RequestKey,
        lease: &Lease,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        let update =
            self.renewing_update(key, lease, lease_end).expression("SET lease_expires_at = :lease_end");
        self.send_renewing(update, "renew the lease of", key, lease).await
    }

    async fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        let update = with_progress(self.renewing_update(key, lease, lease_end), progress)
            .expression(format!("SET {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end"))
            .value(":seq", n(seq));
        self.send_renewing(update, "store progress of", key, lease).await
    }

    /// A big checkpoint lies in a part: both items are written in one transaction, so that no attempt that is fenced
    /// overwrites the checkpoint that a later one continues from.
    async fn checkpoint(
        &self,
        key: &RequestKey,
        lease: &Lease,
        checkpoint: &Value,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> Result<Audience, StoreError> {
        const OPERATION: &str = "store the checkpoint of";
        let update =
            with_progress(self.renewing_update(key, lease, lease_end), progress).value(":seq", n(seq));
        match request_item::text_or_part(checkpoint) {
            Ok(text) => {
                let update = update
                    .expression(format!(
                        "SET checkpoint = :checkpoint, {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end"
                    ))
                    .value(":checkpoint", s(text));
                self.send_renewing(update, OPERATION, key, lease).await
            }
            Err(text) => {
                let update = update
                    .expression(format!(
                        "SET checkpoint_part = :part, {SET_PROGRESS}, seq = :seq, lease_expires_at = :lease_end \
                         REMOVE checkpoint"
                    ))
                    .value(":part", s(part_item::CHECKPOINT_PART));
                let part = part_item::encode(key, part_item::CHECKPOINT_PART, text, None);
                let put = Put::new(&self.table, part);
                transact(&self.client, [update.into_part(), put.into_part()])
                    .await
                    .map_err(|refusal| self.not_renewed(refusal, OPERATION, key, lease))?;
                // A transaction returns no items: the write that follows finds the audience.
                self.renew(key, lease, lease_end).await
            }
        }
    }

    async fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let result = match request_item::text_or_part(result) {
            Ok(text) => ("result", s(text)),
            Err(text) => ("result_part", s(self.put_result(key, lease.epoch, text, last.at).await?)),
        };
        self.end(key, lease, TerminalWrite::completed(result), last).await
    }

    async fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.end(key, lease, TerminalWrite::failed(error).with_history(history), last).await
    }

    async fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.end(key, lease, TerminalWrite::cancelled(), last).await
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
        // Above every number of this attempt, so that a write that ends the request without running it can go on from it.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let set_runner = match runner {
            Runner::Processor => "",
            Runner::Worker => ", runner = :runner",
        };
        let set_attempt = bugs::instead(Bug::RetryLosesAttempts, ", attempt = :uncounted", "");
        let mut update = with_progress(
            self.leaving_update(key, lease, Status::Retrying, due),
            &last.progress,
        )
        .expression(format!(
            "SET {SET_WAITING}, {SET_PROGRESS}, seq = :seq, history = :history{set_runner}{set_attempt} \
                 REMOVE lease_expires_at, cancel_requested"
        ))
        .value(":history", request_item::history_value(history))
        .value(":seq", n(seq));
        if bugs::is(Bug::RetryLosesAttempts) {
            update = update.value(":uncounted", n(0));
        }
        if runner == Runner::Worker {
            update = update.value(":runner", s(request_item::WORKER));
        }
        self.send_leaving(update, "hold back", key, lease, &[Status::Retrying, Status::Pending]).await
    }

    /// The attempt is not over: the claim that follows counts it again.
    async fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let timer = self.unclaimed_at(Runner::Worker, last.at);
        let update = with_progress(self.leaving_update(key, lease, Status::Pending, timer), &last.progress)
            .expression(format!(
                "SET {SET_WAITING}, {SET_PROGRESS}, seq = :seq, runner = :runner, attempt = attempt - :one, \
                 continuations = if_not_exists(continuations, :zero) + :one \
                 REMOVE lease_expires_at, cancel_requested"
            ))
            .value(":runner", s(request_item::WORKER))
            .value(":seq", n(last.seq))
            .value(":zero", n(0))
            .value(":one", n(1));
        self.send_leaving(update, "continue", key, lease, &[Status::Pending]).await
    }
}
