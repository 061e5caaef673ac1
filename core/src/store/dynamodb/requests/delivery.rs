//! Who has been told of the end, and who no longer wants to be.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;

use super::DynamoRequestQueue;
use crate::ids::{ConnectionId, RequestKey};
use crate::store::dynamodb::codec::{n, s};
use crate::store::dynamodb::{Refusal, request_item, store_error};
use crate::store::{Lease, Status, StoreError};

const TERMINAL: [Status; 3] = [Status::Completed, Status::Failed, Status::Cancelled];

/// The attributes without which nobody looks at the request again.
const TIMER: &[&str] = &["timer_shard", "timer_at"];

impl DynamoRequestQueue {
    /// How often a write that removes subscribers follows others that do the same.
    const REMOVE_TRIES: u32 = 4;

    /// A write that removes subscribers, and other attributes with them.
    fn removal(&self, key: &RequestKey, gone: &[ConnectionId], others: &[&str]) -> UpdateItemFluentBuilder {
        let names = (0..gone.len()).map(|n| format!("subscribers.#c{n}"));
        let removed: Vec<String> = names.chain(others.iter().map(ToString::to_string)).collect();
        let mut update = self.update(key).update_expression(format!("REMOVE {}", removed.join(", ")));
        for (n, connection) in gone.iter().enumerate() {
            update = update.expression_attribute_names(format!("#c{n}"), connection.as_str());
        }
        update
    }

    pub(super) async fn note_delivery(
        &self,
        key: &RequestKey,
        lease: &Lease,
        told: &[ConnectionId],
        everyone: bool,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "mark delivery of";
        if everyone {
            let update = self
                .removal(key, told, TIMER)
                .condition_expression("epoch = :epoch AND size(subscribers) = :told")
                .expression_attribute_values(":epoch", n(lease.epoch))
                .expression_attribute_values(":told", n(told.len()));
            match update.send().await.map_err(Refusal::from) {
                Ok(_) => return Ok(()),
                // Somebody has come to listen since: the timer stays for them.
                Err(Refusal::Condition(_)) => {}
                Err(Refusal::Other(error)) => return Err(store_error(self.context(OPERATION, key), error)),
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        let update = self
            .removal(key, told, &[])
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":epoch", n(lease.epoch));
        match update.send().await.map_err(Refusal::from) {
            Ok(_) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Other(error)) => Err(store_error(self.context(OPERATION, key), error)),
        }
    }

    pub(super) async fn remove_subscriber(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
    ) -> Result<(), StoreError> {
        // The last one of a request that has ended takes the timer along.
        let mut is_last = false;
        for _ in 0..Self::REMOVE_TRIES {
            let (others, condition): (&[&str], _) = if is_last {
                (TIMER, "size(subscribers) = :one AND #status IN (:ended0, :ended1, :ended2)")
            } else {
                (&[], "(size(subscribers) > :one OR NOT #status IN (:ended0, :ended1, :ended2))")
            };
            let mut update = self
                .removal(key, std::slice::from_ref(connection), others)
                .condition_expression(format!("attribute_exists(subscribers.#c0) AND {condition}"))
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":one", n(1));
            for (n, status) in TERMINAL.into_iter().enumerate() {
                update = update.expression_attribute_values(format!(":ended{n}"), s(status.as_str()));
            }
            let old = match update.send().await.map_err(Refusal::from) {
                Ok(_) | Err(Refusal::Condition(None)) => return Ok(()),
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Other(error)) => {
                    return Err(store_error(self.context("unsubscribe from", key), error));
                }
            };
            let subscribers = request_item::subscribers(&old)?;
            if !subscribers.contains(connection) {
                return Ok(());
            }
            is_last = subscribers.len() == 1 && request_item::standing(&old)?.0.is_terminal();
        }
        Ok(())
    }
}
