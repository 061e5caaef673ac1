//! Writes that make a request terminal: COMPLETED, FAILED or CANCELLED.

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

/// Condition: no cancel of the request was requested. The value `:not_requested` must be `false`.
pub(super) const CANCEL_NOT_REQUESTED: &str =
    "(attribute_not_exists(cancel_requested) OR cancel_requested = :not_requested)";

/// Attributes that a terminal write sets.
pub(super) struct TerminalWrite {
    /// Terminal status that the write sets.
    pub(super) status: Status,
    /// Name and value of the attribute that holds the result or the error; `None` for CANCELLED.
    outcome: Option<(&'static str, AttributeValue)>,
    /// Names and values of further attributes that the write sets, such as the last progress.
    others: Vec<(&'static str, AttributeValue)>,
    /// Whether the attempt that holds the lease makes the write. If not, the write removes the owner token, so that
    /// no attempt mistakes the write for its own.
    is_by_lease_holder: bool,
}

impl TerminalWrite {
    const fn new(status: Status, outcome: Option<(&'static str, AttributeValue)>) -> Self {
        Self { status, outcome, others: Vec::new(), is_by_lease_holder: true }
    }

    /// Creates a write that makes the request COMPLETED. `result` is the attribute that holds the result, or that
    /// names its part item.
    pub(super) const fn completed(result: (&'static str, AttributeValue)) -> Self {
        Self::new(Status::Completed, Some(result))
    }

    /// Creates a write that makes the request FAILED and marks its dead letter as due.
    pub(super) fn failed(error: &ErrorBody) -> Self {
        let outcome = Some(("error", request_item::error_value(error)));
        Self::new(Status::Failed, outcome).with([("dead_letter", AttributeValue::Bool(true))])
    }

    /// Creates a write that makes the request CANCELLED.
    pub(super) const fn cancelled() -> Self {
        Self::new(Status::Cancelled, None)
    }

    /// Adds attributes to the write.
    pub(super) fn with(mut self, others: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Self {
        self.others.extend(others);
        self
    }

    /// Adds the history of failed attempts to the write, unless the history is empty.
    pub(super) fn with_history(self, history: &[PastAttempt]) -> Self {
        if history.is_empty() { self } else { self.with([("history", request_item::history_value(history))]) }
    }

    /// Marks the write as made by a caller that does not hold the lease.
    pub(super) const fn without_lease(mut self) -> Self {
        self.is_by_lease_holder = false;
        self
    }
}

/// Condition on a request's subscribers under which a request is made terminal or its cancel is requested.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndIf<'a> {
    /// The request may have any subscribers.
    Always,
    /// The request may have no subscriber except this connection.
    NoOtherSubscriber(&'a ConnectionId),
}

impl EndIf<'_> {
    /// Makes `update` conditional on `condition`, and on the subscriber condition `self`.
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

    /// Returns whether the subscribers in an item violate the subscriber condition `self`.
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
    /// Turns `update` into a terminal write.
    ///
    /// `seq` is the update expression for the terminal frame's sequence number. An update without the lease must
    /// define the name `#owner`.
    pub(super) fn terminal(
        &self,
        update: Update,
        key: &RequestKey,
        write: TerminalWrite,
        seq: &str,
        now: Timestamp,
    ) -> Update {
        let TerminalWrite { status, outcome, others, is_by_lease_holder } = write;
        let no_owner = if is_by_lease_holder { "" } else { ", #owner" };
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

    /// Makes a request terminal if its status is one of `from`, and returns the updated item.
    ///
    /// `from` must not contain PROCESSING, the only status in which a request has a lease.
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
        // No attempt is sending frames, so the terminal frame gets the next sequence number.
        let update = self.terminal(update, key, write.without_lease(), "seq + :one", now);
        update.send(&self.client).await
    }
}
