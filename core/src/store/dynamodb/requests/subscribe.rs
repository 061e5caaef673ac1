use super::DynamoRequestQueue;
use crate::bugs::{self, Bug};
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::Seq;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::request_item;
use crate::store::dynamodb::write::Update;
use crate::store::{Delivery, Status, StoreError, StoreErrorKind, SubscribeToRequests, Subscribed};

/// State of the request that a subscription's update assumes; the update fails if the assumption is wrong.
#[derive(Clone, Copy, Debug)]
struct Expected {
    phase: Phase,
    /// Whether the client has seen a later frame than the last stored frame.
    is_ahead: bool,
    /// Whether the request is pending. If so, the update stores the request's own sequence number instead of the
    /// client's, because the next claim numbers its frames above all earlier frames. Storing the same number twice
    /// leaves the item unchanged, and an unchanged item does not appear in the stream. So a client cannot trigger
    /// stream records by subscribing again.
    is_pending: bool,
}

/// Phase of a request that determines whether a subscription sets a timer.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The request is open. Its timer stays unchanged.
    Open,
    /// The request is terminal, and its timer fires soon enough for the sweeper to deliver the terminal frame.
    TerminalDueSoon,
    /// The request is terminal and has no timer, or a late one. The subscription sets a new timer, so that the
    /// sweeper can deliver the terminal frame.
    TerminalNotDueSoon,
}

/// Attributes that put a request into the timer index.
const TIMER: &[&str] = &["timer_shard", "timer_at"];

/// Attributes that one update removes from a request: subscribers, the timer, and the mark of a due dead letter.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Removal {
    subscribers: Vec<ConnectionId>,
    /// True if the update also removes the timer, because no subscriber and no due dead letter remain after the
    /// update.
    is_last: bool,
    is_dead_letter_sent: bool,
    /// True if every part item (a separate item that holds a large value) that must expire with the request has a
    /// time to live.
    part_ttls_set: bool,
}

impl Removal {
    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && !self.is_last && !self.is_dead_letter_sent
    }
}

impl DynamoRequestQueue {
    /// Maximum number of tries to subscribe a connection. A try is repeated if the request has changed concurrently.
    const SUBSCRIBE_TRIES: u32 = 4;
    /// Maximum number of tries to remove subscribers. A try is repeated if the request has changed concurrently. The
    /// sweeper later repeats a removal that did not succeed.
    const REMOVE_TRIES: u32 = 5;

    fn subscription(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
        expected: Expected,
    ) -> Update {
        const IS_OPEN: &str = "#status IN (:pending, :processing, :retrying)";
        const IS_ENDED: &str = "NOT #status IN (:pending, :processing, :retrying) AND #ttl >= :now";
        let Expected { phase, is_ahead, is_pending } = expected;
        let value = if is_ahead && !is_pending { ":seen" } else { "seq" };
        let compared = if is_ahead { "seq < :seen" } else { "seq >= :seen" };
        // An earlier timer stays. Otherwise repeated subscriptions could postpone the request's due time forever.
        let (set_timer, is_in_phase) = match phase {
            Phase::Open if bugs::is(Bug::SubscribeGap) => {
                ("", format!("(attribute_exists(request_id) OR {IS_OPEN})"))
            }
            Phase::Open => ("", IS_OPEN.to_owned()),
            Phase::TerminalDueSoon => ("", format!("{IS_ENDED} AND timer_at <= :timer")),
            Phase::TerminalNotDueSoon => (
                ", timer_shard = :timer_shard, timer_at = :timer",
                format!("{IS_ENDED} AND (attribute_not_exists(timer_at) OR timer_at > :timer)"),
            ),
        };
        let mut update = self
            .update(key)
            .expression(format!("SET subscribers.#connection = {value}{set_timer}"))
            .condition(format!(
                "{is_in_phase} AND {compared} AND (size(subscribers) < :most OR \
                 attribute_exists(subscribers.#connection))"
            ))
            .name("#connection", connection.as_str())
            .name("#status", "status")
            .value(":pending", s(Status::Pending.as_str()))
            .value(":processing", s(Status::Processing.as_str()))
            .value(":retrying", s(Status::Retrying.as_str()))
            .value(":seen", n(seen))
            .value(":most", n(Self::MAX_SUBSCRIBERS))
            .returning_item();
        match phase {
            Phase::Open => return update,
            Phase::TerminalDueSoon => {}
            Phase::TerminalNotDueSoon => {
                update = update.value(":timer_shard", self.timer_shard(key));
            }
        }
        update
            .name("#ttl", "ttl")
            .value(":now", n(now.as_secs()))
            .value(":timer", time(now + self.settings.undelivered_after))
    }

    /// Computes the removal for the next try, from the item on which the previous try failed.
    async fn next_removal(
        &self,
        key: &RequestKey,
        old: &Item,
        failed: &Removal,
    ) -> Result<Removal, StoreError> {
        let mut subscribers = request_item::subscribers(old)?;
        let subscribed = subscribers.len();
        subscribers.retain(|id| failed.subscribers.contains(id));
        let is_letter_due = request_item::is_dead_letter_due(old)?;
        let is_settled = failed.is_dead_letter_sent || !is_letter_due;
        let is_last = subscribers.len() == subscribed && is_settled && request_item::ttl(old)?.is_some();
        if is_last && !failed.part_ttls_set {
            self.release_parts(key, old).await?;
        }
        Ok(Removal {
            subscribers,
            is_last,
            is_dead_letter_sent: failed.is_dead_letter_sent && is_letter_due,
            part_ttls_set: is_last || failed.part_ttls_set,
        })
    }

    /// Creates the update that removes the subscribers, dead-letter mark and timer that `removal` contains.
    ///
    /// If the timer is removed, the update fails unless the removed subscribers are all subscribers of the request.
    fn removal(&self, key: &RequestKey, removal: &Removal, condition: Option<&str>) -> Update {
        let names: Vec<String> =
            (0..removal.subscribers.len()).map(|n| format!("subscribers.#c{n}")).collect();
        let mut conditions: Vec<String> = condition.into_iter().map(str::to_owned).collect();
        let mut removed = names.clone();
        if removal.is_last {
            // Only a terminal request has a time to live.
            conditions.push("attribute_exists(#ttl) AND size(subscribers) = :listening".to_owned());
            conditions.extend(names.iter().map(|name| format!("attribute_exists({name})")));
            removed.extend(TIMER.iter().map(ToString::to_string));
            if !removal.part_ttls_set {
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
            .expression(format!("REMOVE {}", removed.join(", ")))
            .condition(conditions.join(" AND "));
        if removal.is_last {
            update = update.name("#ttl", "ttl").value(":listening", n(names.len()));
        }
        for (n, connection) in removal.subscribers.iter().enumerate() {
            update = update.name(format!("#c{n}"), connection.as_str());
        }
        update
    }
}

impl SubscribeToRequests for DynamoRequestQueue {
    async fn subscribe(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        seen: Seq,
        now: Timestamp,
    ) -> Result<Subscribed, StoreError> {
        let context = || self.context("subscribe to", key);
        let soon = now + self.settings.undelivered_after;
        let mut expected = Expected { phase: Phase::Open, is_ahead: false, is_pending: false };
        let before = if bugs::is(Bug::SubscribeGap) { self.item(key).await? } else { None };
        for _ in 0..Self::SUBSCRIBE_TRIES {
            let update = self.subscription(key, connection, seen, now, expected);
            let old = match update.send(&self.client).await {
                Ok(item) => {
                    let item = before.unwrap_or(item);
                    return Ok(Subscribed::To(Box::new(self.without_big_input(key, item).await?)));
                }
                Err(Refusal::Condition(None)) => return Ok(Subscribed::Missing),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(failure)) => return Err(failure.in_context(context())),
            };
            // DynamoDB deletes expired items with a delay.
            if request_item::ttl(&old)?.is_some_and(|ttl| ttl < now.as_secs()) {
                return Ok(Subscribed::Missing);
            }
            let subscribers = request_item::subscribers(&old)?;
            if subscribers.len() >= Self::MAX_SUBSCRIBERS && !subscribers.contains(connection) {
                return Ok(Subscribed::Full(subscribers));
            }
            let (status, _) = request_item::status_and_lease(&old)?;
            let phase = if !status.is_terminal() {
                Phase::Open
            } else if request_item::timer_at(&old)?.is_some_and(|timer| timer <= soon) {
                Phase::TerminalDueSoon
            } else {
                Phase::TerminalNotDueSoon
            };
            let is_ahead = seen > request_item::seq(&old)?;
            expected = Expected { phase, is_ahead, is_pending: status == Status::Pending };
        }
        let problem = context() + ": the request changed during every try";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }

    async fn unsubscribe(&self, key: &RequestKey, connection: &ConnectionId) -> Result<(), StoreError> {
        let mut removal = Removal {
            subscribers: vec![connection.clone()],
            is_last: false,
            is_dead_letter_sent: false,
            part_ttls_set: false,
        };
        for _ in 0..Self::REMOVE_TRIES {
            let update = if removal.is_last {
                self.removal(key, &removal, None)
            } else {
                let others_stay = "(size(subscribers) > :one OR #status IN (:pending, :processing, :retrying) \
                                    OR attribute_exists(dead_letter))";
                self.removal(key, &removal, Some(others_stay))
                    .name("#status", "status")
                    .value(":one", n(1))
                    .value(":pending", s(Status::Pending.as_str()))
                    .value(":processing", s(Status::Processing.as_str()))
                    .value(":retrying", s(Status::Retrying.as_str()))
            };
            let old = match update.send(&self.client).await {
                Ok(_) | Err(Refusal::Condition(None)) => return Ok(()),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(failure)) => {
                    return Err(failure.in_context(self.context("unsubscribe from", key)));
                }
            };
            removal = self.next_removal(key, &old, &removal).await?;
            if removal.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn record_delivery(
        &self,
        key: &RequestKey,
        epoch: u64,
        delivery: Delivery<'_>,
    ) -> Result<(), StoreError> {
        let Delivery { delivered, is_complete, is_dead_letter_sent, part_ttls_set } = delivery;
        let mut removal = Removal {
            subscribers: delivered.to_vec(),
            is_last: is_complete,
            is_dead_letter_sent,
            part_ttls_set,
        };
        for _ in 0..Self::REMOVE_TRIES {
            if removal.is_empty() {
                return Ok(());
            }
            let update = self.removal(key, &removal, Some("epoch = :epoch")).value(":epoch", n(epoch));
            let old = match update.send(&self.client).await {
                Ok(_) | Err(Refusal::Condition(None)) => return Ok(()),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(failure)) => {
                    return Err(failure.in_context(self.context("record the delivery of", key)));
                }
            };
            if old.get("epoch") != Some(&n(epoch)) {
                return Ok(());
            }
            // A connection has subscribed or left since the delivery. The timer stays if a subscriber without the
            // terminal frame remains.
            removal = self.next_removal(key, &old, &removal).await?;
        }
        Ok(())
    }
}
