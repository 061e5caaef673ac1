//! The writes that need no lease, since nobody runs the request, or since they only ask.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::DynamoRequestQueue;
use super::ending::EndingValue;
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{Cancelled, NewStatus, Runner, Status, StoreError, StoreErrorKind};

/// Whom a cancellation spares the request for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sparing<'a> {
    /// Nobody.
    Nobody,
    /// Whoever listens, but for this connection.
    AllBut(&'a ConnectionId),
}

type Update = Result<Option<Item>, Refusal<UpdateItemError>>;

impl DynamoRequestQueue {
    /// How often a cancellation follows a request that changes its status meanwhile.
    const CANCEL_TRIES: u32 = 4;

    pub(super) async fn set_status(
        &self,
        key: &RequestKey,
        from: Status,
        to: NewStatus,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "update the status of";
        let status = to.status();
        if !to.may_follow(from) {
            let (from, to) = (from.as_str(), status.as_str());
            let problem = format!("{}: from {from} to {to} without its lease", self.context(OPERATION, key));
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        }
        let updated = match to {
            NewStatus::Pending => self.make_pending(key, now).await,
            NewStatus::Failed(error) => {
                let ending = EndingValue::failed(&error);
                self.end_unclaimed(key, &[from], Sparing::Nobody, ending, now).await
            }
            NewStatus::Cancelled => {
                let ending = EndingValue::new(status, None);
                self.end_unclaimed(key, &[from], Sparing::Nobody, ending, now).await
            }
        };
        match updated {
            Ok(item) => {
                self.release_at_once(key, &item.unwrap_or_default()).await;
                Ok(())
            }
            Err(Refusal::Condition(Some(old))) => {
                let (stands, _) = request_item::standing(&old)?;
                if stands == status && self.is_written_at(&old, status, now)? {
                    self.release_at_once(key, &old).await;
                    return Ok(());
                }
                let why = if stands == from && request_item::has_attempts_left(&old)? {
                    "its next attempt is not due".to_owned()
                } else if stands == from {
                    "it has had all its attempts".to_owned()
                } else {
                    format!("it is {}, not {}", stands.as_str(), from.as_str())
                };
                let problem = format!("{}: {why}", self.context(OPERATION, key));
                Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
            }
            Err(Refusal::Condition(None)) => Err(self.not_found(OPERATION, key)),
            Err(Refusal::Other(error)) => Err(store_error(self.context(OPERATION, key), error)),
        }
    }

    pub(super) async fn cancel_or_ask(
        &self,
        key: &RequestKey,
        sparing: Sparing<'_>,
        now: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        const OPERATION: &str = "cancel";
        let now_cancelled = async |item: Item| {
            Ok(Cancelled::Now {
                subscribers: request_item::subscribers(&item)?,
                seq: request_item::seq(&item)?,
                epoch: request_item::epoch(&item)?,
                parts_released: self.release_at_once(key, &item).await,
            })
        };
        let context = || self.context(OPERATION, key);
        for _ in 0..Self::CANCEL_TRIES {
            let ending = EndingValue::new(Status::Cancelled, None);
            let unclaimed = [Status::Pending, Status::Retrying];
            let old = match self.end_unclaimed(key, &unclaimed, sparing, ending, now).await {
                Ok(updated) => return now_cancelled(updated.unwrap_or_default()).await,
                Err(Refusal::Condition(old)) => old.ok_or_else(|| self.not_found(OPERATION, key))?,
                Err(Refusal::Other(error)) => return Err(store_error(context(), error)),
            };
            match request_item::standing(&old)?.0 {
                Status::Pending | Status::Processing | Status::Retrying if sparing.spares(&old)? => {
                    return Ok(Cancelled::HasOtherSubscribers);
                }
                Status::Pending | Status::Retrying => {}
                Status::Processing => match self.ask_to_stop(key, sparing).await {
                    Ok(_) => return Ok(Cancelled::Requested),
                    Err(Refusal::Condition(_)) => {}
                    Err(Refusal::Other(error)) => return Err(store_error(context(), error)),
                },
                Status::Cancelled if self.is_written_at(&old, Status::Cancelled, now)? => {
                    return now_cancelled(old).await;
                }
                ended @ (Status::Completed | Status::Failed | Status::Cancelled) => {
                    return Ok(Cancelled::Ended(ended));
                }
            }
        }
        let problem = context() + ": it changed its status again and again";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }

    async fn make_pending(&self, key: &RequestKey, now: Timestamp) -> Update {
        let update = self
            .update(key)
            .update_expression(
                "SET #status = :status, status_shard = :shard, timer_shard = :timer_shard, timer_at = :timer",
            )
            .condition_expression("#status = :retrying AND timer_at <= :now AND attempt < max_attempts")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":retrying", s(Status::Retrying.as_str()))
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(":status", s(Status::Pending.as_str()))
            .expression_attribute_values(":shard", self.status_shard(Status::Pending, key))
            .expression_attribute_values(":timer_shard", self.timer_shard(key))
            // Which function is to claim it is not known here: the longer time does for both.
            .expression_attribute_values(":timer", time(self.unclaimed_at(Runner::Worker, now)));
        Ok(update.send().await?.attributes)
    }

    /// Ends a request that stands in one of the statuses `from`, in which nobody runs it.
    async fn end_unclaimed(
        &self,
        key: &RequestKey,
        from: &[Status],
        sparing: Sparing<'_>,
        ending: EndingValue,
        now: Timestamp,
    ) -> Update {
        let names: Vec<String> = (0..from.len()).map(|n| format!(":from{n}")).collect();
        let condition = format!("#status IN ({})", names.join(", "));
        let mut update = sparing
            .condition(self.update(key), condition)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":one", n(1))
            .return_values(ReturnValue::AllNew);
        for (name, status) in names.into_iter().zip(from) {
            update = update.expression_attribute_values(name, s(status.as_str()));
        }
        // Nobody numbers frames of a request that nobody runs: the next number is the last frame's.
        Ok(self.ending(update, key, ending.of_nobody(), "seq + :one", now).send().await?.attributes)
    }

    async fn ask_to_stop(&self, key: &RequestKey, sparing: Sparing<'_>) -> Update {
        let update = sparing
            .condition(self.update(key), "#status = :processing".to_owned())
            .update_expression("SET cancel_requested = :requested")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":requested", AttributeValue::Bool(true));
        Ok(update.send().await?.attributes)
    }

    /// Whether the item was given this status by a write of ours of that moment, whose answer was lost.
    fn is_written_at(&self, old: &Item, status: Status, now: Timestamp) -> Result<bool, StoreError> {
        Ok(if status.is_terminal() {
            request_item::finished_at(old)? == Some(now)
        } else {
            request_item::timer_at(old)? == Some(self.unclaimed_at(Runner::Worker, now))
        })
    }

    fn not_found(&self, operation: &str, key: &RequestKey) -> StoreError {
        StoreError::new(StoreErrorKind::NotFound, self.context(operation, key))
    }
}

impl Sparing<'_> {
    /// Has an update be conditional on this and on nobody listening whom the request is spared for.
    fn condition(self, update: UpdateItemFluentBuilder, condition: String) -> UpdateItemFluentBuilder {
        match self {
            Self::Nobody => update.condition_expression(condition),
            Self::AllBut(connection) => update
                .condition_expression(format!(
                    "{condition} AND (size(subscribers) = :nobody OR \
                     size(subscribers) = :alone AND attribute_exists(subscribers.#connection))"
                ))
                .expression_attribute_names("#connection", connection.as_str())
                .expression_attribute_values(":nobody", n(0))
                .expression_attribute_values(":alone", n(1)),
        }
    }

    fn spares(self, old: &Item) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Nobody => false,
            Self::AllBut(connection) => {
                request_item::subscribers(old)?.iter().any(|other| other != connection)
            }
        })
    }
}
