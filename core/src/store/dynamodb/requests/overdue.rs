//! The writes about a request that somebody has to look at. Each is conditional on how it was seen, so that of two who
//! look at once, one acts.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;

use super::DynamoRequestQueue;
use super::ending::EndingValue;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{n, s, time};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{Abandoned, PastAttempt, RequestSummary, Runner, Status, StoreError, StoreErrorKind};

impl DynamoRequestQueue {
    /// When a request that is pending now, for this runner, is to be looked at.
    pub(super) fn unclaimed_at(&self, runner: Runner, now: Timestamp) -> Timestamp {
        now + match runner {
            Runner::Processor => self.settings.unclaimed_after,
            Runner::Worker => self.settings.unclaimed_by_worker_after,
        }
    }

    pub(super) async fn nudge_pending(
        &self,
        seen: &RequestSummary,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = seen.key();
        let Some(timer_at) = seen.timer_at else { return Ok(false) };
        let update = self
            .update(&key)
            .update_expression("SET nudges = if_not_exists(nudges, :zero) + :one, timer_at = :timer")
            .condition_expression("#status = :pending AND timer_at = :seen")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":seen", time(timer_at))
            .expression_attribute_values(":timer", time(self.unclaimed_at(seen.runner, now)));
        self.done_unless_moved_on(update, "nudge", &key).await
    }

    pub(super) async fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let update = self
            .update(key)
            .update_expression("SET timer_at = :until")
            .condition_expression("timer_at = :seen")
            .expression_attribute_values(":seen", time(timer_at))
            .expression_attribute_values(":until", time(until));
        self.done_unless_moved_on(update, "set the timer of", key).await
    }

    pub(super) async fn take_from_holder(
        &self,
        seen: &RequestSummary,
        verdict: &Abandoned,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "take back";
        let key = seen.key();
        let Some(lease) = seen.lease.as_ref().filter(|_| seen.status == Status::Processing) else {
            let problem = self.context(OPERATION, &key) + ": it was not seen under a lease";
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        };
        // A renewal changes the lease's end, and a claim the epoch: then the attempt lives.
        let update = self
            .update(&key)
            .condition_expression(
                "#status = :processing AND epoch = :epoch AND lease_expires_at = :lease_end",
            )
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":lease_end", time(lease.expires_at));
        // Above whatever the attempt may have pushed.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let ending = match verdict {
            Abandoned::Again => {
                let update = update
                    .update_expression(
                        "SET #status = :pending, status_shard = :shard, runner = :runner, history = :history, \
                         seq = :seq, timer_shard = :timer_shard, timer_at = :timer \
                         REMOVE lease_expires_at, cancel_requested",
                    )
                    .expression_attribute_values(":pending", s(Status::Pending.as_str()))
                    .expression_attribute_values(":shard", self.status_shard(Status::Pending, &key))
                    .expression_attribute_values(":runner", s(request_item::WORKER))
                    .expression_attribute_values(":history", request_item::history_value(history))
                    .expression_attribute_values(":seq", n(seq))
                    .expression_attribute_values(":timer_shard", self.timer_shard(&key))
                    .expression_attribute_values(":timer", time(self.unclaimed_at(Runner::Worker, now)));
                return self.done_unless_moved_on(update, OPERATION, &key).await;
            }
            Abandoned::Failed(error) => EndingValue::failed(error).with_history(history),
            Abandoned::Cancelled => EndingValue::new(Status::Cancelled, None),
        };
        let update =
            self.ending(update, &key, ending, ":seq", now).expression_attribute_values(":seq", n(seq.next()));
        self.done_unless_moved_on(update, OPERATION, &key).await
    }

    async fn done_unless_moved_on(
        &self,
        update: UpdateItemFluentBuilder,
        operation: &str,
        key: &RequestKey,
    ) -> Result<bool, StoreError> {
        match update.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(true),
            Err(Refusal::Condition(_)) => Ok(false),
            Err(Refusal::Other(error)) => Err(store_error(self.context(operation, key), error)),
        }
    }
}
