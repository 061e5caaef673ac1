use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};

use super::DynamoRequestQueue;
use super::parts::transaction_error;
#[cfg(feature = "seeded-bugs")]
use crate::bugs::{self, Bug};
use crate::ids::RequestKey;
use crate::store::dynamodb::codec::{Item, n};
use crate::store::dynamodb::request_item::{self, Encoded};
use crate::store::dynamodb::{Refusal, store_error};
use crate::store::{Enqueued, Request, StoreError, StoreErrorKind};

/// Deletion lags behind the time to live: what has expired no longer counts.
///
/// But what still owes its dead letter keeps its id until that is sent.
const IS_NEW: &str =
    "attribute_not_exists(request_id) OR (#ttl < :now AND attribute_not_exists(dead_letter))";

impl DynamoRequestQueue {
    pub(super) async fn put_new(&self, request: &Request) -> Result<Enqueued, StoreError> {
        let key = request.key();
        let timer_at = self.unclaimed_at(request.runner, request.created_at);
        let Encoded { item, parts } = request_item::encode(request, Some(timer_at), self.settings.shards);
        #[cfg(feature = "seeded-bugs")]
        let item = if bugs::is(Bug::TtlAtEnqueue) {
            let ttl = n((request.created_at + self.settings.ttl).as_secs());
            item.into_iter().chain([("ttl".to_owned(), ttl)]).collect()
        } else {
            item
        };
        let now = n(request.created_at.as_secs());
        if parts.is_empty() {
            let put = self
                .client
                .put_item()
                .table_name(&self.table)
                .set_item(Some(item))
                .condition_expression(IS_NEW)
                .expression_attribute_names("#ttl", "ttl")
                .expression_attribute_values(":now", now)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            return match put.send().await.map_err(Refusal::from) {
                Ok(_) => Ok(Enqueued::New),
                Err(Refusal::Condition(old)) => self.existing(&key, old).await,
                Err(Refusal::Other(error)) => Err(store_error(self.context("enqueue", &key), error)),
            };
        }
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(IS_NEW)
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":now", now)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build();
        let part = |item| Put::builder().table_name(&self.table).set_item(Some(item)).build();
        let writes: Result<Vec<_>, _> = std::iter::once(put)
            .chain(parts.into_iter().map(part))
            .map(|put| Ok(TransactWriteItem::builder().put(put?).build()))
            .collect();
        let writes = writes.map_err(|error: BuildError| {
            StoreError::new(StoreErrorKind::Misuse, self.context("enqueue", &key)).with_source(error)
        })?;
        let transaction = self.client.transact_write_items().set_transact_items(Some(writes));
        match transaction.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(Enqueued::New),
            Err(Refusal::Condition(old)) => self.existing(&key, old).await,
            Err(Refusal::Other(error)) => Err(transaction_error(self.context("enqueue", &key), error)),
        }
    }

    async fn existing(&self, key: &RequestKey, old: Option<Item>) -> Result<Enqueued, StoreError> {
        let old = old.ok_or_else(|| {
            let problem = self.context("enqueue", key) + ": the store did not return the existing item";
            StoreError::new(StoreErrorKind::Misuse, problem)
        })?;
        Ok(Enqueued::Existing(Box::new(self.whole(key, &old).await?)))
    }
}
