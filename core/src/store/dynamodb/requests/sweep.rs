use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoRequestQueue;
use super::terminal::{CANCEL_NOT_REQUESTED, EndIf, TerminalWrite};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::request_item;
use crate::store::dynamodb::write::Update;
use crate::store::{
    NewStatus, PastAttempt, ReclaimVerdict, RequestSummary, Runner, Status, StoreError, StoreErrorKind,
    SweepRequests,
};

impl DynamoRequestQueue {
    /// Sends a conditional update, and returns whether it has taken effect.
    ///
    /// A refused update may have taken effect in an earlier try whose response was lost. In that case the item has the
    /// attribute values `expected`.
    async fn send_unless_changed(
        &self,
        update: Update,
        operation: &str,
        key: &RequestKey,
        expected: &[(&str, AttributeValue)],
    ) -> Result<bool, StoreError> {
        match update.send(&self.client).await {
            Ok(_) => Ok(true),
            Err(Refusal::Condition(old)) => Ok(old.is_some_and(|old| {
                expected.iter().all(|(attribute, value)| old.get(*attribute) == Some(value))
            })),
            Err(Refusal::Other(failure)) => Err(failure.in_context(self.context(operation, key))),
        }
    }

    async fn make_pending(&self, key: &RequestKey, now: Timestamp) -> Result<Item, Refusal> {
        let update = self
            .update(key)
            .expression(
                "SET #status = :status, status_shard = :shard, timer_shard = :timer_shard, timer_at = :timer",
            )
            .condition("#status = :retrying AND timer_at <= :now AND attempt < max_attempts")
            .name("#status", "status")
            .value(":retrying", s(Status::Retrying.as_str()))
            .value(":now", time(now))
            .value(":status", s(Status::Pending.as_str()))
            .value(":shard", self.status_shard(Status::Pending, key))
            .value(":timer_shard", self.timer_shard(key))
            // The request's runner is unknown here, so the due time uses the worker's timeout, which is longer than
            // the processor's timeout.
            .value(":timer", time(self.unclaimed_at(Runner::Worker, now)));
        update.send(&self.client).await
    }

    /// Returns whether a write at time `now` has set this status. If so, the caller's own write had succeeded, and its
    /// response was lost.
    fn is_written_at(&self, old: &Item, status: Status, now: Timestamp) -> Result<bool, StoreError> {
        Ok(if status.is_terminal() {
            request_item::finished_at(old)? == Some(now)
        } else {
            request_item::timer_at(old)? == Some(self.unclaimed_at(Runner::Worker, now))
        })
    }
}

impl SweepRequests for DynamoRequestQueue {
    async fn nudge(&self, seen: &RequestSummary, now: Timestamp) -> Result<bool, StoreError> {
        let key = seen.key();
        let Some(timer_at) = seen.timer_at else { return Ok(false) };
        let timer = self.unclaimed_at(seen.runner, now);
        let update = self
            .update(&key)
            .expression("SET nudges = if_not_exists(nudges, :zero) + :one, timer_at = :timer")
            .condition("#status = :pending AND timer_at = :seen")
            .name("#status", "status")
            .value(":zero", n(0))
            .value(":one", n(1))
            .value(":pending", s(Status::Pending.as_str()))
            .value(":seen", time(timer_at))
            .value(":timer", time(timer));
        let expected = [("status", s(Status::Pending.as_str())), ("timer_at", time(timer))];
        self.send_unless_changed(update, "nudge", &key, &expected).await
    }

    async fn postpone(
        &self,
        key: &RequestKey,
        timer_at: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let update = self
            .update(key)
            .expression("SET timer_at = :until")
            .condition("timer_at = :seen")
            .value(":seen", time(timer_at))
            .value(":until", time(until));
        self.send_unless_changed(update, "postpone the timer of", key, &[("timer_at", time(until))]).await
    }

    /// Removes the owner token together with the lease. Otherwise the former holder, if it still runs, could mistake
    /// this write for its own write whose response was lost.
    async fn reclaim(
        &self,
        seen: &RequestSummary,
        verdict: &ReclaimVerdict,
        history: &[PastAttempt],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "reclaim";
        let key = seen.key();
        let Some(lease) = seen.lease.as_ref().filter(|_| seen.status == Status::Processing) else {
            let problem = self.context(OPERATION, &key) + ": the request was read without a lease";
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        };
        // A cancel may be requested until the moment of this write, so the verdict must match the stored cancel flag.
        let (requested, flag, is_set) = match verdict {
            ReclaimVerdict::Rerun | ReclaimVerdict::Failed(_) => {
                (CANCEL_NOT_REQUESTED, ":not_requested", false)
            }
            ReclaimVerdict::Cancelled => ("cancel_requested = :requested", ":requested", true),
        };
        // A renewal changes the lease's expiry, and a claim changes the epoch. In both cases an attempt is running,
        // so the reclaim must fail.
        let update = self
            .update(&key)
            .condition(format!(
                "#status = :processing AND epoch = :epoch AND lease_expires_at = :lease_end AND {requested}"
            ))
            .name("#status", "status")
            .name("#owner", "owner")
            .value(":processing", s(Status::Processing.as_str()))
            .value(":epoch", n(lease.epoch))
            .value(":lease_end", time(lease.expires_at))
            .value(flag, AttributeValue::Bool(is_set));
        // The new sequence number is above the number of every frame that the attempt may have pushed.
        let seq = Seq::start_of(lease.epoch.saturating_add(1));
        let write = match verdict {
            ReclaimVerdict::Rerun => {
                let timer = self.unclaimed_at(Runner::Worker, now);
                let update = update
                    .expression(
                        "SET #status = :pending, status_shard = :shard, runner = :runner, history = :history, \
                         seq = :seq, timer_shard = :timer_shard, timer_at = :timer \
                         REMOVE lease_expires_at, cancel_requested, #owner",
                    )
                    .value(":pending", s(Status::Pending.as_str()))
                    .value(":shard", self.status_shard(Status::Pending, &key))
                    .value(":runner", s(request_item::WORKER))
                    .value(":history", request_item::history_value(history))
                    .value(":seq", n(seq))
                    .value(":timer_shard", self.timer_shard(&key))
                    .value(":timer", time(timer));
                let expected = [
                    ("status", s(Status::Pending.as_str())),
                    ("epoch", n(lease.epoch)),
                    ("seq", n(seq)),
                    ("timer_at", time(timer)),
                ];
                return self.send_unless_changed(update, OPERATION, &key, &expected).await;
            }
            ReclaimVerdict::Failed(error) => TerminalWrite::failed(error),
            ReclaimVerdict::Cancelled => TerminalWrite::cancelled(),
        };
        let expected = [
            ("status", s(write.status.as_str())),
            ("epoch", n(lease.epoch)),
            ("seq", n(seq.next())),
            ("finished_at", time(now)),
        ];
        let write = write.with_history(history).without_lease();
        let update = self.terminal(update, &key, write, ":seq", now).value(":seq", n(seq.next()));
        self.send_unless_changed(update, OPERATION, &key, &expected).await
    }

    async fn update_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let context = || self.context("update the status of", key);
        let status = to.status();
        if !to.may_follow(from) {
            let (from, to) = (from.as_str(), status.as_str());
            let problem = format!("{}: cannot change from {from} to {to} without the lease", context());
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        }
        let write_terminal =
            async |write| self.end_without_lease(key, &[from], EndIf::Always, write, now).await;
        let updated = match to {
            NewStatus::Pending => self.make_pending(key, now).await,
            NewStatus::Failed(error) => write_terminal(TerminalWrite::failed(&error)).await,
            NewStatus::Cancelled => write_terminal(TerminalWrite::cancelled()).await,
        };
        match updated {
            Ok(item) => {
                self.try_release_parts(key, &item).await;
                Ok(())
            }
            Err(Refusal::Condition(Some(old))) => {
                let (found, _) = request_item::status_and_lease(&old)?;
                if found == status && self.is_written_at(&old, status, now)? {
                    self.try_release_parts(key, &old).await;
                    return Ok(());
                }
                let why = if found == from && request_item::has_attempts_left(&old)? {
                    "the next attempt is not due".to_owned()
                } else if found == from {
                    "no attempts left".to_owned()
                } else {
                    format!("status is {}, not {}", found.as_str(), from.as_str())
                };
                Err(StoreError::new(StoreErrorKind::ConditionLost, format!("{}: {why}", context())))
            }
            Err(Refusal::Condition(None)) => Err(StoreError::new(StoreErrorKind::NotFound, context())),
            Err(Refusal::Other(failure)) => Err(failure.in_context(context())),
        }
    }
}
