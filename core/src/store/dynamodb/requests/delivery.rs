//! Who has been told of the end, and who no longer wants to be.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;

use super::DynamoRequestQueue;
use crate::ids::{ConnectionId, RequestKey};
use crate::store::dynamodb::codec::{Item, n, s};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{Delivery, Status, StoreError};

/// The attributes without which nobody looks at the request again.
const TIMER: &[&str] = &["timer_shard", "timer_at"];

/// Who is taken off, and whether that leaves nobody, so that the timer goes as well.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Removal {
    subscribers: Vec<ConnectionId>,
    /// Whether nobody is left, and no dead letter is to be sent.
    is_last: bool,
    is_dead_letter_sent: bool,
    /// Whether the request's parts have their time to live, or there are none that need it.
    parts_released: bool,
}

impl Removal {
    fn is_nothing(&self) -> bool {
        self.subscribers.is_empty() && !self.is_last && !self.is_dead_letter_sent
    }
}

impl DynamoRequestQueue {
    /// How often a removal follows others that change the same subscribers; then it is left to whoever the timer wakes.
    const REMOVE_TRIES: u32 = 5;

    pub(super) async fn note_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> Result<(), StoreError> {
        let Delivery { delivered, is_complete, is_dead_letter_sent, parts_released } = delivery;
        let mut removal = Removal {
            subscribers: delivered.to_vec(),
            is_last: is_complete,
            is_dead_letter_sent,
            parts_released,
        };
        for _ in 0..Self::REMOVE_TRIES {
            if removal.is_nothing() {
                return Ok(());
            }
            let update = self
                .removal(key, &removal, Some("epoch = :epoch"))
                .expression_attribute_values(":epoch", n(epoch));
            let old = match update.send().await.map_err(Refusal::from) {
                Ok(_) | Err(Refusal::Condition(None)) => return Ok(()),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(error)) => {
                    return Err(store_error(self.context("mark delivery of", key), error));
                }
            };
            if old.get("epoch") != Some(&n(epoch)) {
                return Ok(());
            }
            // Somebody has come to listen since, or left: the timer stays for who is not told.
            removal = self.next_removal(key, &old, &removal).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_subscriber(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
    ) -> Result<(), StoreError> {
        let gone = std::slice::from_ref(connection);
        let mut removal = Removal {
            subscribers: gone.to_vec(),
            is_last: false,
            is_dead_letter_sent: false,
            parts_released: false,
        };
        for _ in 0..Self::REMOVE_TRIES {
            let update = if removal.is_last {
                self.removal(key, &removal, None)
            } else {
                let others_stay = "(size(subscribers) > :one OR #status IN (:pending, :processing, :retrying) \
                                    OR attribute_exists(dead_letter))";
                self.removal(key, &removal, Some(others_stay))
                    .expression_attribute_names("#status", "status")
                    .expression_attribute_values(":one", n(1))
                    .expression_attribute_values(":pending", s(Status::Pending.as_str()))
                    .expression_attribute_values(":processing", s(Status::Processing.as_str()))
                    .expression_attribute_values(":retrying", s(Status::Retrying.as_str()))
            };
            let old = match update.send().await.map_err(Refusal::from) {
                Ok(_) | Err(Refusal::Condition(None)) => return Ok(()),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(error)) => {
                    return Err(store_error(self.context("unsubscribe from", key), error));
                }
            };
            removal = self.next_removal(key, &old, &removal).await?;
            if removal.is_nothing() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is left to remove from an item that was not as expected.
    async fn next_removal(
        &self,
        key: &RequestKey,
        old: &Item,
        refused: &Removal,
    ) -> Result<Removal, StoreError> {
        let mut subscribers = request_item::subscribers(old)?;
        let listening = subscribers.len();
        subscribers.retain(|id| refused.subscribers.contains(id));
        let is_letter_due = request_item::is_dead_letter_due(old)?;
        let is_settled = refused.is_dead_letter_sent || !is_letter_due;
        let is_last = subscribers.len() == listening && is_settled && request_item::ttl(old)?.is_some();
        if is_last && !refused.parts_released {
            self.release_parts(key, old).await?;
        }
        Ok(Removal {
            subscribers,
            is_last,
            is_dead_letter_sent: refused.is_dead_letter_sent && is_letter_due,
            parts_released: is_last || refused.parts_released,
        })
    }

    /// A write that removes subscribers who all still listen, what was due of a dead letter, and the timer with the last.
    fn removal(
        &self,
        key: &RequestKey,
        removal: &Removal,
        condition: Option<&str>,
    ) -> UpdateItemFluentBuilder {
        let names: Vec<String> =
            (0..removal.subscribers.len()).map(|n| format!("subscribers.#c{n}")).collect();
        let mut conditions: Vec<String> = condition.into_iter().map(str::to_owned).collect();
        let mut removed = names.clone();
        if removal.is_last {
            // Only what has ended has a time to live.
            conditions.push("attribute_exists(#ttl) AND size(subscribers) = :listening".to_owned());
            conditions.extend(names.iter().map(|name| format!("attribute_exists({name})")));
            removed.extend(TIMER.iter().map(ToString::to_string));
            if !removal.parts_released {
                let has_none = |part| format!("attribute_not_exists({part})");
                conditions.extend(request_item::OPEN_PARTS.map(has_none));
            }
            if !removal.is_dead_letter_sent {
                conditions.push("attribute_not_exists(dead_letter)".to_owned());
            }
        }
        if removal.is_dead_letter_sent {
            removed.push("dead_letter".to_owned());
        }
        let mut update = self
            .update(key)
            .update_expression(format!("REMOVE {}", removed.join(", ")))
            .condition_expression(conditions.join(" AND "));
        if removal.is_last {
            update = update
                .expression_attribute_names("#ttl", "ttl")
                .expression_attribute_values(":listening", n(names.len()));
        }
        for (n, connection) in removal.subscribers.iter().enumerate() {
            update = update.expression_attribute_names(format!("#c{n}"), connection.as_str());
        }
        update
    }
}
