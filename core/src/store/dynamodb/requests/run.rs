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

/// Condition: this attempt still holds the lease, that is, no later claim, reclaim or terminal write has changed the
/// request.
const FENCE: &str = "epoch = :epoch AND #owner = :owner AND #status = :processing";

/// Returns [`FENCE`], or a weaker condition if the simulator has seeded the bug `NoEpochCheck`.
fn fence() -> &'static str {
    if bugs::is(Bug::NoEpochCheck) {
        return "(epoch = :epoch AND #owner = :owner OR #status = :processing)";
    }
    FENCE
}

/// Condition: the attempt has made no later write. Each write of an attempt asks for a later lease expiry.
///
/// Without this condition, a write that timed out and takes effect late would undo the attempt's later writes.
const NO_LATER_WRITE: &str = "lease_expires_at <= :lease_end";

/// Assignments of an update expression that store progress; [`with_progress`] sets their values.
const SET_PROGRESS: &str =
    "percentage = :percentage, progress_message = :message, progress_metadata = :metadata";

/// Assignments of an update expression that store a waiting status and its timer;
/// [`releasing_update`](DynamoRequestQueue::releasing_update) sets their values.
const SET_WAITING: &str =
    "#status = :status, status_shard = :shard, timer_shard = :timer_shard, timer_at = :timer";

fn with_progress(update: Update, progress: &Progress) -> Update {
    update
        .value(":percentage", n(progress.percentage))
        .value(":message", s(&progress.message))
        .value(":metadata", json(&progress.metadata.clone().into()))
}

/// Decodes the audience (subscribers and cancel flag) from an item.
fn audience(item: &Item) -> Result<Audience, StoreError> {
    Ok(Audience {
        subscribers: request_item::subscribers_with_seen(item)?,
        cancel_requested: request_item::cancel_requested(item)?,
        part_ttls_set: false,
    })
}

/// Returns whether the attempt that holds or held `lease` has set the item's status, and the status is one of
/// `statuses`.
fn is_written_by(old: &Item, lease: &Lease, statuses: &[Status]) -> bool {
    let text = |attribute: &str| old.get(attribute).and_then(|value| value.as_s().ok());
    if bugs::is(Bug::ForeignEndingTaken) {
        return text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found));
    }
    text("status").is_some_and(|found| statuses.iter().any(|status| status.as_str() == found))
        && text("owner").is_some_and(|found| *found == lease.owner)
        && old.get("epoch") == Some(&n(lease.epoch))
}

impl DynamoRequestQueue {
    /// Creates an update that succeeds only for the attempt that holds the lease.
    ///
    /// The update returns the whole item, from which the audience is decoded. `UPDATED_NEW` would return changed
    /// attributes only, and returning the whole item consumes no extra capacity.
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
                format!("{context}: epoch {} no longer holds the lease", lease.epoch),
            ),
            Refusal::Other(failure) => failure.in_context(context),
        }
    }

    /// Creates an update that renews the lease until `lease_end`.
    fn renewing_update(&self, key: &RequestKey, lease: &Lease, lease_end: Timestamp) -> Update {
        self.fenced_update(key, lease)
            .condition(format!("{} AND {NO_LATER_WRITE}", fence()))
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
            Refusal::Condition(Some(old)) if is_written_by(old, lease, &[Status::Processing]) => {
                let context =
                    self.context(operation, key) + ": a later write of the same attempt has succeeded";
                StoreError::new(StoreErrorKind::ConditionLost, context)
            }
            Refusal::Condition(_) | Refusal::Other(_) => self.fenced(refusal, operation, key, lease),
        }
    }

    /// Creates an update that releases the lease, after which the request waits and is due at `timer`.
    fn releasing_update(&self, key: &RequestKey, lease: &Lease, status: Status, timer: Timestamp) -> Update {
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

    async fn send_releasing(
        &self,
        update: Update,
        operation: &str,
        key: &RequestKey,
        lease: &Lease,
        written_as: &[Status],
    ) -> Result<Audience, StoreError> {
        match update.send(&self.client).await {
            Ok(updated) => audience(&updated),
            // The item has a status that only this write, or a write after it, can have set. So this write has
            // succeeded, and its response was lost.
            Err(Refusal::Condition(Some(old))) if is_written_by(&old, lease, written_as) => audience(&old),
            Err(Refusal::Condition(Some(old))) if is_written_by(&old, lease, &[Status::Processing]) => {
                Err(self.cancel_was_requested(operation, key))
            }
            Err(refusal) => Err(self.fenced(refusal, operation, key, lease)),
        }
    }

    fn cancel_was_requested(&self, operation: &str, key: &RequestKey) -> StoreError {
        let context = self.context(operation, key) + ": cancel was requested";
        StoreError::new(StoreErrorKind::ConditionLost, context)
    }

    async fn write_terminal(
        &self,
        key: &RequestKey,
        lease: &Lease,
        write: TerminalWrite,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        const OPERATION: &str = "write the terminal status of";
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
            // A request whose cancel was requested must become CANCELLED, not FAILED with a dead letter.
            condition = format!("{condition} AND {CANCEL_NOT_REQUESTED}");
            update = update.value(":not_requested", AttributeValue::Bool(false));
        }
        let condition = bugs::instead(
            Bug::TerminalWriteUnconditional,
            // The correct condition stays in the expression, because DynamoDB refuses values that no expression uses.
            format!("attribute_exists(request_id) OR {condition}"),
            condition,
        );
        let terminal = match update.condition(condition).send(&self.client).await {
            Ok(updated) => updated,
            // The item has our epoch, owner token and status. So an earlier try of this write has succeeded, and its
            // response was lost.
            Err(Refusal::Condition(Some(old))) if is_written_by(&old, lease, &[status]) => old,
            Err(Refusal::Condition(Some(old))) if is_written_by(&old, lease, &[Status::Processing]) => {
                return Err(self.cancel_was_requested(OPERATION, key));
            }
            Err(refusal) => return Err(self.fenced(refusal, OPERATION, key, lease)),
        };
        let part_ttls_set = self.try_release_parts(key, &terminal).await;
        Ok(Audience { part_ttls_set, ..audience(&terminal)? })
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

    /// A large checkpoint is a part item. Both items are written in one transaction, so that a fenced attempt cannot
    /// overwrite the checkpoint from which a later attempt continues.
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
                transact(&self.client, [update.into_transact_item(), put.into_transact_item()])
                    .await
                    .map_err(|refusal| self.not_renewed(refusal, OPERATION, key, lease))?;
                // A transaction returns no items, so a renewal follows to return the audience.
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
        self.write_terminal(key, lease, TerminalWrite::completed(result), last).await
    }

    async fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        history: &[PastAttempt],
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.write_terminal(key, lease, TerminalWrite::failed(error).with_history(history), last).await
    }

    async fn confirm_cancel(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.write_terminal(key, lease, TerminalWrite::cancelled(), last).await
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
        // Stores a sequence number above those of all frames of this attempt, because a terminal write without a
        // further attempt uses the next number.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let set_runner = match runner {
            Runner::Processor => "",
            Runner::Worker => ", runner = :runner",
        };
        let set_attempt = bugs::instead(Bug::RetryLosesAttempts, ", attempt = :uncounted", "");
        let mut update = with_progress(
            self.releasing_update(key, lease, Status::Retrying, due),
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
        self.send_releasing(update, "schedule the retry of", key, lease, &[Status::Retrying, Status::Pending])
            .await
    }

    /// Subtracts one from the attempt count, because the same attempt continues and its next claim counts it again.
    async fn continue_later(
        &self,
        key: &RequestKey,
        lease: &Lease,
        last: &LastReport,
    ) -> Result<Audience, StoreError> {
        let timer = self.unclaimed_at(Runner::Worker, last.at);
        let update = with_progress(self.releasing_update(key, lease, Status::Pending, timer), &last.progress)
            .expression(format!(
                "SET {SET_WAITING}, {SET_PROGRESS}, seq = :seq, runner = :runner, attempt = attempt - :one, \
                 continuations = if_not_exists(continuations, :zero) + :one \
                 REMOVE lease_expires_at, cancel_requested"
            ))
            .value(":runner", s(request_item::WORKER))
            .value(":seq", n(last.seq))
            .value(":zero", n(0))
            .value(":one", n(1));
        self.send_releasing(update, "yield", key, lease, &[Status::Pending]).await
    }
}
