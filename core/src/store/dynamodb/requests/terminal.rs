//! Writes that end a request.

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoRequestQueue;
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::request_item;
use crate::store::dynamodb::write::Update;
use crate::store::{PastAttempt, Status, StoreError};

/// What holds unless somebody has asked to cancel the request, where `:not_requested` is false.
pub(super) const CANCEL_NOT_REQUESTED: &str =
    "(attribute_not_exists(cancel_requested) OR cancel_requested = :not_requested)";

/// What a write sets that ends a request.
pub(super) struct TerminalWrite {
    pub(super) status: Status,
    /// The attribute that holds the result or the error.
    outcome: Option<(&'static str, AttributeValue)>,
    /// Other attributes, such as the last progress.
    others: Vec<(&'static str, AttributeValue)>,
    /// Whether the lease's holder makes the write. Otherwise it removes the owner, so that no attempt takes it for its own.
    is_holders: bool,
}

impl TerminalWrite {
    const fn new(status: Status, outcome: Option<(&'static str, AttributeValue)>) -> Self {
        Self { status, outcome, others: Vec::new(), is_holders: true }
    }

    /// To COMPLETED; `result` is the attribute that holds the result, or names its part.
    pub(super) const fn completed(result: (&'static str, AttributeValue)) -> Self {
        Self::new(Status::Completed, Some(result))
    }

    /// To FAILED, with a dead letter to send.
    pub(super) fn failed(error: &ErrorBody) -> Self {
        let outcome = Some(("error", request_item::error_value(error)));
        Self::new(Status::Failed, outcome).with([("dead_letter", AttributeValue::Bool(true))])
    }

    /// To CANCELLED.
    pub(super) const fn cancelled() -> Self {
        Self::new(Status::Cancelled, None)
    }

    /// The same, with these attributes.
    pub(super) fn with(mut self, others: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Self {
        self.others.extend(others);
        self
    }

    /// The same, with the history that leads to it.
    pub(super) fn with_history(self, history: &[PastAttempt]) -> Self {
        if history.is_empty() { self } else { self.with([("history", request_item::history_value(history))]) }
    }

    /// The same, made without the lease.
    pub(super) const fn without_lease(mut self) -> Self {
        self.is_holders = false;
        self
    }
}

/// Under which condition on its subscribers a request is ended or asked to stop.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndIf<'a> {
    /// Whoever subscribes.
    Always,
    /// Only if no connection but this one subscribes.
    NoOtherSubscriber(&'a ConnectionId),
}

impl EndIf<'_> {
    /// Makes an update conditional on `condition` and on the subscribers.
    pub(super) fn condition(self, update: Update, condition: String) -> Update {
        match self {
            Self::Always => update.condition(condition),
            Self::NoOtherSubscriber(connection) => update
                .condition(format!(
                    "{condition} AND (size(subscribers) = :nobody OR \
                     size(subscribers) = :alone AND attribute_exists(subscribers.#connection))"
                ))
                .name("#connection", connection.as_str())
                .value(":nobody", n(0))
                .value(":alone", n(1)),
        }
    }

    /// Whether the subscribers of an item forbid it.
    pub(super) fn is_forbidden_by(self, old: &Item) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Always => false,
            Self::NoOtherSubscriber(connection) => {
                request_item::subscribers(old)?.iter().any(|other| other != connection)
            }
        })
    }
}

impl DynamoRequestQueue {
    /// Makes an update end the request; `seq` is the expression of the terminal frame's number. The update must name `#owner`
    /// if it is made without the lease.
    pub(super) fn terminal(
        &self,
        update: Update,
        key: &RequestKey,
        write: TerminalWrite,
        seq: &str,
        now: Timestamp,
    ) -> Update {
        let TerminalWrite { status, outcome, others, is_holders } = write;
        let no_owner = if is_holders { "" } else { ", #owner" };
        let set_outcome = if outcome.is_some() { "#outcome = :outcome, " } else { "" };
        let set_others: String =
            others.iter().map(|(attribute, _)| format!("{attribute} = :{attribute}, ")).collect();
        let update = others
            .into_iter()
            .fold(update, |update, (attribute, value)| update.value(format!(":{attribute}"), value))
            .expression(format!(
                "SET #status = :status, status_shard = :shard, {set_outcome}{set_others}seq = {seq}, \
                 finished_at = :now, #ttl = :ttl, timer_shard = :timer_shard, timer_at = :timer \
                 REMOVE lease_expires_at, cancel_requested{no_owner}"
            ))
            .name("#ttl", "ttl")
            .value(":status", s(status.as_str()))
            .value(":shard", self.status_shard(status, key))
            .value(":now", time(now))
            .value(":ttl", n((now + self.settings.ttl).as_secs()))
            .value(":timer_shard", self.timer_shard(key))
            .value(":timer", time(now + self.settings.undelivered_after));
        match outcome {
            None => update,
            Some((attribute, value)) => update.name("#outcome", attribute).value(":outcome", value),
        }
    }

    /// Ends a request of one of the statuses `from`, in which it has no lease. Returns its item.
    pub(super) async fn end_without_lease(
        &self,
        key: &RequestKey,
        from: &[Status],
        end_if: EndIf<'_>,
        write: TerminalWrite,
        now: Timestamp,
    ) -> Result<Item, Refusal> {
        let names: Vec<String> = (0..from.len()).map(|n| format!(":from{n}")).collect();
        let condition = format!("#status IN ({})", names.join(", "));
        let mut update = end_if
            .condition(self.update(key), condition)
            .name("#status", "status")
            .name("#owner", "owner")
            .value(":one", n(1))
            .returning_item();
        for (name, status) in names.into_iter().zip(from) {
            update = update.value(name, s(status.as_str()));
        }
        // No attempt numbers frames now: the next number is the terminal frame's.
        let update = self.terminal(update, key, write.without_lease(), "seq + :one", now);
        update.send(&self.client).await
    }
}
