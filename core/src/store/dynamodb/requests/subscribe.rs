//! Who comes to listen.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValue;

use super::DynamoRequestQueue;
use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{n, s, time};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{RequestQueue, Status, StoreError, StoreErrorKind, Subscribed};

/// What is set of a request that somebody comes to listen to, by where it stands.
#[derive(Clone, Copy, Debug)]
struct Listening {
    /// It has ended: somebody must see to it that the terminal frame is sent.
    is_ended: bool,
    /// The client has seen more than is stored.
    is_ahead: bool,
}

impl DynamoRequestQueue {
    /// How often a subscription follows a request that changes meanwhile.
    const SUBSCRIBE_TRIES: u32 = 4;

    pub(super) async fn add_subscriber(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> Result<Subscribed, StoreError> {
        const OPERATION: &str = "subscribe to";
        let mut listening = Listening { is_ended: false, is_ahead: false };
        for _ in 0..Self::SUBSCRIBE_TRIES {
            let update = self.subscription(key, connection, seen, now, listening);
            let old = match update.send().await.map_err(Refusal::from) {
                Ok(updated) => {
                    let item = updated.attributes.unwrap_or_default();
                    return Ok(Subscribed::To(Box::new(self.standing(key, item).await?)));
                }
                Err(Refusal::Condition(None)) => return Ok(Subscribed::Missing),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(error)) => return Err(store_error(self.context(OPERATION, key), error)),
            };
            // Deletion lags behind the time to live.
            if request_item::ttl(&old)?.is_some_and(|ttl| ttl < now.as_secs()) {
                return Ok(Subscribed::Missing);
            }
            let subscribers = request_item::subscribers(&old)?;
            if subscribers.len() >= Self::MAX_SUBSCRIBERS && !subscribers.contains(connection) {
                return Ok(Subscribed::Full(subscribers));
            }
            let (status, _) = request_item::standing(&old)?;
            listening =
                Listening { is_ended: status.is_terminal(), is_ahead: seen > request_item::seq(&old)? };
        }
        let problem = self.context(OPERATION, key) + ": it changed again and again";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }

    fn subscription(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
        listening: Listening,
    ) -> UpdateItemFluentBuilder {
        let Listening { is_ended, is_ahead } = listening;
        let (value, compared) = if is_ahead { (":seen", "seq < :seen") } else { ("seq", "seq >= :seen") };
        let (timer, stands, not_expired) = if is_ended {
            (", timer_shard = :timer_shard, timer_at = :timer", "NOT #status", " AND #ttl >= :now")
        } else {
            ("", "#status", "")
        };
        let mut update = self
            .update(key)
            .update_expression(format!("SET subscribers.#connection = {value}{timer}"))
            .condition_expression(format!(
                "{stands} IN (:pending, :processing, :retrying) AND {compared}{not_expired} AND \
                 (size(subscribers) < :most OR attribute_exists(subscribers.#connection))"
            ))
            .expression_attribute_names("#connection", connection.as_str())
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":retrying", s(Status::Retrying.as_str()))
            .expression_attribute_values(":seen", n(seen))
            .expression_attribute_values(":most", n(Self::MAX_SUBSCRIBERS))
            .return_values(ReturnValue::AllNew);
        if is_ended {
            update = update
                .expression_attribute_names("#ttl", "ttl")
                .expression_attribute_values(":now", n(now.as_secs()))
                .expression_attribute_values(":timer_shard", self.timer_shard(key))
                .expression_attribute_values(":timer", time(now + self.settings.undelivered_after));
        }
        update
    }

    pub(super) async fn note_redrive(
        &self,
        key: &RequestKey,
        as_request: &RequestId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note the redrive of";
        let update = self
            .update(key)
            .update_expression("SET redriven_as = :id")
            .condition_expression("#status = :failed")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":failed", s(Status::Failed.as_str()))
            .expression_attribute_values(":id", s(as_request.as_str()));
        match update.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(()),
            Err(Refusal::Condition(_)) => {
                Err(StoreError::new(StoreErrorKind::NotFound, self.context(OPERATION, key)))
            }
            Err(Refusal::Other(error)) => Err(store_error(self.context(OPERATION, key), error)),
        }
    }
}
