//! Who comes to listen.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValue;

use super::DynamoRequestQueue;
#[cfg(feature = "seeded-bugs")]
use crate::bugs::{self, Bug};
use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{n, s, time};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{RequestQueue, Status, StoreError, StoreErrorKind, Subscribed};

/// What is set of a request that somebody comes to listen to, by where it stands.
#[derive(Clone, Copy, Debug)]
struct Listening {
    stands: Standing,
    /// The client has seen more than is stored.
    is_ahead: bool,
    /// Whoever claims it next numbers its frames above all that anybody has seen. And a write that changes such an item
    /// appears in the stream: it must not be for the client to say how often.
    is_pending: bool,
}

/// Where a request stands that somebody comes to listen to.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// It has a timer, and comes to its end.
    Open,
    /// It has ended, and is looked at soon: the terminal frame is sent then.
    EndedTimed,
    /// It has ended, and is not looked at any more, or much later: it has to be, for the terminal frame.
    EndedUntimed,
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
        let soon = now + self.settings.undelivered_after;
        let mut listening = Listening { stands: Standing::Open, is_ahead: false, is_pending: false };
        #[cfg(feature = "seeded-bugs")]
        let before = if bugs::is(Bug::SubscribeGap) { self.read(key).await? } else { None };
        for _ in 0..Self::SUBSCRIBE_TRIES {
            let update = self.subscription(key, connection, seen, now, listening);
            let old = match update.send().await.map_err(Refusal::from) {
                Ok(updated) => {
                    let item = updated.attributes.unwrap_or_default();
                    #[cfg(feature = "seeded-bugs")]
                    let item = before.unwrap_or(item);
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
            let stands = if !status.is_terminal() {
                Standing::Open
            } else if request_item::timer_at(&old)?.is_some_and(|timer| timer <= soon) {
                Standing::EndedTimed
            } else {
                Standing::EndedUntimed
            };
            let is_ahead = seen > request_item::seq(&old)?;
            listening = Listening { stands, is_ahead, is_pending: status == Status::Pending };
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
        const IS_OPEN: &str = "#status IN (:pending, :processing, :retrying)";
        const IS_ENDED: &str = "NOT #status IN (:pending, :processing, :retrying) AND #ttl >= :now";
        let Listening { stands, is_ahead, is_pending } = listening;
        let value = if is_ahead && !is_pending { ":seen" } else { "seq" };
        let compared = if is_ahead { "seq < :seen" } else { "seq >= :seen" };
        // An earlier timer stays: else who asks again and again would put off whatever else is still to be done.
        let (set_timer, stands_so) = match stands {
            #[cfg(feature = "seeded-bugs")]
            Standing::Open if bugs::is(Bug::SubscribeGap) => {
                ("", format!("(attribute_exists(request_id) OR {IS_OPEN})"))
            }
            Standing::Open => ("", IS_OPEN.to_owned()),
            Standing::EndedTimed => ("", format!("{IS_ENDED} AND timer_at <= :timer")),
            Standing::EndedUntimed => (
                ", timer_shard = :timer_shard, timer_at = :timer",
                format!("{IS_ENDED} AND (attribute_not_exists(timer_at) OR timer_at > :timer)"),
            ),
        };
        let mut update = self
            .update(key)
            .update_expression(format!("SET subscribers.#connection = {value}{set_timer}"))
            .condition_expression(format!(
                "{stands_so} AND {compared} AND (size(subscribers) < :most OR \
                 attribute_exists(subscribers.#connection))"
            ))
            .expression_attribute_names("#connection", connection.as_str())
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":retrying", s(Status::Retrying.as_str()))
            .expression_attribute_values(":seen", n(seen))
            .expression_attribute_values(":most", n(Self::MAX_SUBSCRIBERS))
            .return_values(ReturnValue::AllNew);
        match stands {
            Standing::Open => return update,
            Standing::EndedTimed => {}
            Standing::EndedUntimed => {
                update = update.expression_attribute_values(":timer_shard", self.timer_shard(key));
            }
        }
        update = update
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":now", n(now.as_secs()))
            .expression_attribute_values(":timer", time(now + self.settings.undelivered_after));
        update
    }

    pub(super) async fn note_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note the redrive of";
        let update = self
            .update(key)
            .update_expression("SET redriven_as = :id")
            .condition_expression("#status = :failed AND epoch = :epoch")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":failed", s(Status::Failed.as_str()))
            .expression_attribute_values(":epoch", n(epoch))
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
