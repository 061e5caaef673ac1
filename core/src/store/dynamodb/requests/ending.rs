use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoRequestQueue;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::dynamodb::codec::{n, s, time};
use crate::store::dynamodb::request_item;
use crate::store::{PastAttempt, Status};

/// A terminal status, and the attribute that says how it came to it.
pub(super) struct EndingValue {
    pub(super) status: Status,
    pub(super) outcome: Option<(&'static str, AttributeValue)>,
    /// What is set beside it, such as the last progress.
    pub(super) beside: Vec<(&'static str, AttributeValue)>,
    /// Whether it is the lease's holder who ends it. Else no owner is left, so that no attempt takes the end for its own.
    is_holders: bool,
}

impl EndingValue {
    pub(super) const fn new(status: Status, outcome: Option<(&'static str, AttributeValue)>) -> Self {
        Self { status, outcome, beside: Vec::new(), is_holders: true }
    }

    /// An end that is told in an error, and sent as a dead letter.
    pub(super) fn failed(error: &ErrorBody) -> Self {
        let outcome = Some(("error", request_item::error_value(error)));
        Self {
            beside: vec![("dead_letter", AttributeValue::Bool(true))],
            ..Self::new(Status::Failed, outcome)
        }
    }

    /// The same, with the history that leads to it.
    pub(super) fn with_history(mut self, history: &[PastAttempt]) -> Self {
        if !history.is_empty() {
            self.beside.push(("history", request_item::history_value(history)));
        }
        self
    }

    /// The same, written by somebody who does not hold the lease.
    pub(super) const fn of_nobody(mut self) -> Self {
        self.is_holders = false;
        self
    }
}

impl DynamoRequestQueue {
    /// Has an update end the request; `seq` is the expression of its last frame's number. It must name `#owner`.
    pub(super) fn ending(
        &self,
        update: UpdateItemFluentBuilder,
        key: &RequestKey,
        ending: EndingValue,
        seq: &str,
        now: Timestamp,
    ) -> UpdateItemFluentBuilder {
        let EndingValue { status, outcome, beside, is_holders } = ending;
        let no_owner = if is_holders { "" } else { ", #owner" };
        let set_outcome = if outcome.is_some() { "#outcome = :outcome, " } else { "" };
        let set_beside: String =
            beside.iter().map(|(attribute, _)| format!("{attribute} = :{attribute}, ")).collect();
        let update = beside.into_iter().fold(update, |update, (attribute, value)| {
            update.expression_attribute_values(format!(":{attribute}"), value)
        });
        let update = update
            .update_expression(format!(
                "SET #status = :status, status_shard = :shard, {set_outcome}{set_beside}seq = {seq}, \
                 finished_at = :now, #ttl = :ttl, timer_shard = :timer_shard, timer_at = :timer \
                 REMOVE lease_expires_at, cancel_requested{no_owner}"
            ))
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":status", s(status.as_str()))
            .expression_attribute_values(":shard", self.status_shard(status, key))
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(":ttl", n((now + self.settings.ttl).as_secs()))
            .expression_attribute_values(":timer_shard", self.timer_shard(key))
            .expression_attribute_values(":timer", time(now + self.settings.undelivered_after));
        match outcome {
            None => update,
            Some((attribute, value)) => update
                .expression_attribute_names("#outcome", attribute)
                .expression_attribute_values(":outcome", value),
        }
    }
}
