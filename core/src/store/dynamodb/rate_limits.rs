use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::codec::{Item, n};
use super::error::Refusal;
use super::rate_limit_item;
use crate::ports::Timestamp;
use crate::store::{FullAt, Rate, RateLimits, StoreError, StoreErrorKind, Taken};

/// Token buckets for rate limits, in a DynamoDB table.
///
/// Taking a token costs one conditional update of one write unit, or two updates if the known state of the bucket was
/// wrong. A failed update is retried only once, because the answer to a message waits for the update, and because
/// throttling of the table must become visible soon. If only the response of an update was lost, the retry takes a
/// second token.
#[derive(Clone, Debug)]
pub struct DynamoRateLimits {
    client: Client,
    table: String,
}

/// Assumed state of a bucket. Each state needs a different update, because update expressions have no maximum function.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Guess {
    /// The bucket is full or has no item. The update sets the fill time to now plus one interval.
    Full,
    /// The bucket is not full. The update adds one interval to the stored fill time.
    InUse,
}

impl DynamoRateLimits {
    /// Maximum wait before the retry of an update; the actual wait is a random part of this maximum (full jitter).
    const BACKOFF: Duration = Duration::from_millis(50);

    /// Creates a store of token buckets on the table named `table`.
    ///
    /// The store's calls have a separate retry quota, so that throttling of one bucket does not use up the retries of
    /// the client's other calls.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Self::BACKOFF);
        let quota = RetryPartition::custom("rate limits").build();
        let config = client.config().to_builder().retry_config(retries).retry_partition(quota).build();
        Self { client: Client::from_conf(config), table: table.into() }
    }

    async fn update(
        &self,
        guess: Guess,
        bucket: &str,
        rate: Rate,
        now: Timestamp,
    ) -> Result<Option<Item>, Refusal> {
        // Latest time at which the bucket can be full again after this token is granted.
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
                Err(Refusal::Other(failure)) => return Err(failure.in_context(self.context(bucket))),
            }
        }
        // The stored `full_at` never decreases. So the second guess is right, unless the item was deleted between the
        // two updates.
        let problem = self.context(bucket) + ": the bucket changed between two updates";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sdk_dynamodb::types::error::{
        ConditionalCheckFailedException, ProvisionedThroughputExceededException,
    };
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    async fn take(rules: &[&Rule], known: FullAt) -> Result<Taken, StoreError> {
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::Sequential, rules);
        DynamoRateLimits::new(client, "limits").take("b", Rate::per_second(10), NOW, known).await
    }

    fn refused(by: &'static str, full_at: Option<u64>) -> Rule {
        mock!(Client::update_item)
            .match_requests(move |request| request.condition_expression().unwrap().contains(by))
            .then_error(move || {
                let item = full_at.map(|us| [("full_at".to_owned(), n(us))].into());
                let error = ConditionalCheckFailedException::builder().set_item(item).build();
                UpdateItemError::ConditionalCheckFailedException(error)
            })
    }

    fn granted(by: &'static str, full_at: u64) -> Rule {
        mock!(Client::update_item)
            .match_requests(move |request| request.condition_expression().unwrap().contains(by))
            .then_output(move || UpdateItemOutput::builder().attributes("full_at", n(full_at)).build())
    }

    const FULL: &str = "attribute_not_exists(full_at)";
    const IN_USE: &str = "full_at > :now";

    #[tokio::test]
    async fn known_bucket_state_selects_the_first_update_and_a_wrong_guess_costs_a_second_update() {
        let (idle, used) = (FullAt::default(), FullAt::from_micros(1_000_400_000));
        let now_used = 1_000_500_000;
        let granted_now = Taken::Granted(FullAt::from_micros(now_used));
        for (rules, known) in [
            (vec![granted(FULL, now_used)], idle),
            (vec![granted(IN_USE, now_used)], used),
            (vec![refused(FULL, Some(1_000_400_000)), granted(IN_USE, now_used)], idle),
            (vec![refused(IN_USE, None), granted(FULL, now_used)], used),
        ] {
            let all: Vec<&Rule> = rules.iter().collect();
            assert_eq!(take(&all, known).await.unwrap(), granted_now);
            assert!(rules.iter().all(|rule| rule.num_calls() == 1));
        }
        // The first update detects an empty bucket: with ten tokens per second, a bucket that will be full in one
        // second has no token.
        for (rule, known) in
            [(refused(FULL, Some(1_001_000_000)), idle), (refused(IN_USE, Some(1_001_000_000)), used)]
        {
            let taken = take(&[&rule], known).await.unwrap();
            assert_eq!(taken, Taken::Refused(FullAt::from_micros(1_001_000_000)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limit_table_failures_map_to_store_error_kinds() {
        let throttled = mock!(Client::update_item).then_error(|| {
            let code = ErrorMetadata::builder().code("ProvisionedThroughputExceededException").build();
            let error = ProvisionedThroughputExceededException::builder().meta(code).build();
            UpdateItemError::ProvisionedThroughputExceededException(error)
        });
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&throttled]);
        let limits = DynamoRateLimits::new(client, "limits");
        let error = limits.take("b", Rate::per_second(10), NOW, FullAt::default()).await.unwrap_err();
        assert_eq!((error.kind(), throttled.num_calls()), (StoreErrorKind::Throttled, 2));
        assert_eq!(error.to_string(), "throttled: take a token from bucket b in table limits");

        let deleted_meanwhile = [refused(IN_USE, None), refused(FULL, Some(1_000_100_000))];
        let [first, second] = &deleted_meanwhile;
        let error = take(&[first, second], FullAt::from_micros(1_000_400_000)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::ConditionLost);

        let wrong = mock!(Client::update_item).then_output(|| {
            UpdateItemOutput::builder().attributes("full_at", AttributeValue::Bool(true)).build()
        });
        assert_eq!(take(&[&wrong], FullAt::default()).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    }
}
