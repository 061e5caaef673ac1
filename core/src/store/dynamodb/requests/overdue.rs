//! The writes about a request that somebody has to look at. Each is conditional on how it was seen, so that of two who
//! look at once, one acts.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoRequestQueue;
use super::ending::EndingValue;
use super::leased::NOT_ASKED;
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
        let timer = self.unclaimed_at(seen.runner, now);
        let update = self
            .update(&key)
            .update_expression("SET nudges = if_not_exists(nudges, :zero) + :one, timer_at = :timer")
            .condition_expression("#status = :pending AND timer_at = :seen")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":seen", time(timer_at))
            .expression_attribute_values(":timer", time(timer));
        let left = [("status", s(Status::Pending.as_str())), ("timer_at", time(timer))];
        self.done_unless_moved_on(update, "nudge", &key, &left).await
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
        self.done_unless_moved_on(update, "set the timer of", key, &[("timer_at", time(until))]).await
    }

    /// The owner goes with the lease: what is left is nothing that the holder, should it live, could take for its own
    /// write whose answer was lost.
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
        // Its end may be asked for until the very moment: that is never forgotten.
        let (asked, flag, is_set) = match verdict {
            Abandoned::Again | Abandoned::Failed(_) => (NOT_ASKED, ":not_requested", false),
            Abandoned::Cancelled => ("cancel_requested = :requested", ":requested", true),
        };
        // A renewal changes the lease's end, and a claim the epoch: then the attempt lives.
        let update = self
            .update(&key)
            .condition_expression(format!(
                "#status = :processing AND epoch = :epoch AND lease_expires_at = :lease_end AND {asked}"
            ))
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":lease_end", time(lease.expires_at))
            .expression_attribute_values(flag, AttributeValue::Bool(is_set));
        // Above whatever the attempt may have pushed.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let ending = match verdict {
            Abandoned::Again => {
                let timer = self.unclaimed_at(Runner::Worker, now);
                let update = update
                    .update_expression(
                        "SET #status = :pending, status_shard = :shard, runner = :runner, history = :history, \
                         seq = :seq, timer_shard = :timer_shard, timer_at = :timer \
                         REMOVE lease_expires_at, cancel_requested, #owner",
                    )
                    .expression_attribute_values(":pending", s(Status::Pending.as_str()))
                    .expression_attribute_values(":shard", self.status_shard(Status::Pending, &key))
                    .expression_attribute_values(":runner", s(request_item::WORKER))
                    .expression_attribute_values(":history", request_item::history_value(history))
                    .expression_attribute_values(":seq", n(seq))
                    .expression_attribute_values(":timer_shard", self.timer_shard(&key))
                    .expression_attribute_values(":timer", time(timer));
                let left = [
                    ("status", s(Status::Pending.as_str())),
                    ("epoch", n(lease.epoch)),
                    ("seq", n(seq)),
                    ("timer_at", time(timer)),
                ];
                return self.done_unless_moved_on(update, OPERATION, &key, &left).await;
            }
            Abandoned::Failed(error) => EndingValue::failed(error).with_history(history),
            Abandoned::Cancelled => EndingValue::new(Status::Cancelled, None).with_history(history),
        };
        let left = [
            ("status", s(ending.status.as_str())),
            ("epoch", n(lease.epoch)),
            ("seq", n(seq.next())),
            ("finished_at", time(now)),
        ];
        let update = self
            .ending(update, &key, ending.of_nobody(), ":seq", now)
            .expression_attribute_values(":seq", n(seq.next()));
        self.done_unless_moved_on(update, OPERATION, &key, &left).await
    }

    /// Says whether the update did what it was to do. Where it was refused, it may have done so in a try before, whose
    /// answer was lost: then the item has these attributes, which it `left`.
    async fn done_unless_moved_on(
        &self,
        update: UpdateItemFluentBuilder,
        operation: &str,
        key: &RequestKey,
        left: &[(&str, AttributeValue)],
    ) -> Result<bool, StoreError> {
        match update.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(true),
            Err(Refusal::Condition(old)) => Ok(old
                .is_some_and(|old| left.iter().all(|(attribute, value)| old.get(*attribute) == Some(value)))),
            Err(Refusal::Other(error)) => Err(store_error(self.context(operation, key), error)),
        }
    }
}
