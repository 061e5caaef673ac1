use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::codec::{Item, n};
use super::{Refusal, rate_limit_item, store_error};
use crate::ports::Timestamp;
use crate::store::{FullAt, Rate, RateLimits, StoreError, StoreErrorKind, Taken};

/// Token buckets in a DynamoDB table.
///
/// A token costs one conditional update of one write unit; two where a bucket that was thought full is not. The SDK may
/// send an update again whose answer was lost: that call then takes two tokens.
#[derive(Clone, Debug)]
pub struct DynamoRateLimits {
    client: Client,
    table: String,
}

/// What the bucket is taken for: each has an update of its own, since no expression knows a maximum.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Guess {
    /// It is full, or not there: the token counts from now.
    Full,
    /// It is not: the token counts from when it would have been.
    InUse,
}

impl DynamoRateLimits {
    /// Buckets in `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    async fn update(
        &self,
        guess: Guess,
        bucket: &str,
        rate: Rate,
        now: Timestamp,
    ) -> Result<Option<Item>, Refusal<UpdateItemError>> {
        // No granted token brings a bucket beyond this.
        let last = rate.latest(now).after(rate.interval_us());
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(rate_limit_item::KEY, rate_limit_item::key(bucket))
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":ttl", rate_limit_item::ttl(last))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let update = match guess {
            Guess::Full => update
                .update_expression("SET full_at = :taken, #ttl = :ttl")
                .condition_expression("attribute_not_exists(full_at) OR full_at <= :now")
                .expression_attribute_values(":now", rate_limit_item::full_at(FullAt::now(now)))
                .expression_attribute_values(
                    ":taken",
                    rate_limit_item::full_at(FullAt::now(now).after(rate.interval_us())),
                ),
            Guess::InUse => update
                .update_expression("SET full_at = full_at + :interval, #ttl = :ttl")
                .condition_expression("full_at > :now AND full_at <= :latest")
                .expression_attribute_values(":now", rate_limit_item::full_at(FullAt::now(now)))
                .expression_attribute_values(":latest", rate_limit_item::full_at(rate.latest(now)))
                .expression_attribute_values(":interval", n(rate.interval_us())),
        };
        Ok(update.send().await?.attributes)
    }

    fn context(&self, bucket: &str) -> String {
        format!("take a token from bucket {bucket} in table {}", self.table)
    }
}

impl RateLimits for DynamoRateLimits {
    async fn take(
        &self,
        bucket: &str,
        rate: Rate,
        now: Timestamp,
        known: FullAt,
    ) -> Result<Taken, StoreError> {
        let guesses =
            if known > FullAt::now(now) { [Guess::InUse, Guess::Full] } else { [Guess::Full, Guess::InUse] };
        for guess in guesses {
            match self.update(guess, bucket, rate, now).await {
                Ok(updated) => {
                    let stored = updated.as_ref().map(rate_limit_item::decode).transpose()?.flatten();
                    return Ok(Taken::Granted(stored.unwrap_or(known)));
                }
                Err(Refusal::Condition(old)) => {
                    let old = old.as_ref().map(rate_limit_item::decode).transpose()?.flatten();
                    if let Some(full_at) = old.filter(|full_at| *full_at > rate.latest(now)) {
                        return Ok(Taken::Refused(full_at));
                    }
                }
                Err(Refusal::Other(error)) => return Err(store_error(self.context(bucket), error)),
            }
        }
        // A bucket only ever fills up later, so that the second guess is right, unless it was deleted meanwhile.
        let problem = self.context(bucket) + ": it changed meanwhile";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }
}
