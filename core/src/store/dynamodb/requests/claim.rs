use aws_sdk_dynamodb::types::ReturnValue;

use super::DynamoRequestQueue;
use super::lists::STATUS_TIME;
#[cfg(feature = "seeded-bugs")]
use crate::bugs::{self, Bug};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::request_item::{self, RUNNER};
use crate::store::dynamodb::{Refusal, store_error};
use crate::store::{Claimed, PageRequest, Runner, Status, StoreError};

/// Pending, or failed and due again: by `timer_at`, which is the due time as long as it is retrying.
const IS_WAITING: &str =
    "#status = :pending OR (#status = :retrying AND timer_at <= :now AND attempt < max_attempts)";

/// Whoever claims has a token of its own for each claim. Where it has held the request already, this is the claim that won, made
/// once more by the SDK and arrived late: it would hold the request for nobody.
const NOT_HELD_BEFORE: &str = "(attribute_not_exists(#owner) OR #owner <> :owner)";

fn is_waiting(item: &Item, status: Status, now: Timestamp) -> Result<bool, StoreError> {
    Ok(match status {
        Status::Pending => true,
        Status::Retrying => {
            request_item::timer_at(item)?.is_some_and(|due| due <= now)
                && request_item::has_attempts_left(item)?
        }
        Status::Processing | Status::Completed | Status::Failed | Status::Cancelled => false,
    })
}

impl DynamoRequestQueue {
    /// How many of the oldest are tried before the index is read again.
    const DEQUEUE_LIMIT: usize = 10;
    /// After how many refused claims it is not the requests that are at fault, but the table or its policy.
    const DEQUEUE_REFUSALS: usize = 100;

    pub(super) async fn claim_pending(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Claimed, StoreError> {
        let may_claim = match runner {
            Runner::Processor => {
                format!("({IS_WAITING}) AND {NOT_HELD_BEFORE} AND attribute_not_exists({RUNNER})")
            }
            Runner::Worker => format!("({IS_WAITING}) AND {NOT_HELD_BEFORE}"),
        };
        #[cfg(feature = "seeded-bugs")]
        let may_claim = bugs::instead(
            Bug::ClaimUnconditional,
            format!("attribute_exists(request_id) OR {may_claim}"),
            may_claim,
        );
        let update = self
            .update(key)
            .update_expression(
                "SET #status = :processing, status_shard = :shard, epoch = epoch + :one, \
                 attempt = attempt + :one, #owner = :owner, lease_expires_at = :lease_end, \
                 started_at = :now, timer_shard = :timer_shard, timer_at = :timer",
            )
            .condition_expression(may_claim)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":retrying", s(Status::Retrying.as_str()))
            .expression_attribute_values(":processing", s(Status::Processing.as_str()))
            .expression_attribute_values(":shard", self.status_shard(Status::Processing, key))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":owner", s(owner))
            .expression_attribute_values(":lease_end", time(lease_end))
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(
                ":timer_shard",
                s(request_item::timer_shard(key, self.settings.shards)),
            )
            .expression_attribute_values(":timer", time(lease_end + self.settings.lease_grace))
            .return_values(ReturnValue::AllNew);
        let (item, won) = match update.send().await.map_err(Refusal::from) {
            Ok(updated) => (updated.attributes, true),
            Err(Refusal::Condition(old)) => (old, false),
            Err(Refusal::Other(error)) => return Err(store_error(self.context("claim", key), error)),
        };
        let Some(item) = item else { return Ok(Claimed::Missing) };
        // No more than this is read of what may not be ours.
        let (status, lease) = request_item::standing(&item)?;
        match lease {
            // Our token on a refused claim: the claim had succeeded, and its answer was lost.
            Some(lease) if won || (status == Status::Processing && lease.owner == owner) => {
                Ok(match self.whole_at_last(key, &item).await {
                    Ok(request) => Claimed::Won(Box::new(request), lease),
                    Err(error) if error.is_transient() => Claimed::OutOfReach(lease, error),
                    Err(error) => Claimed::Unreadable(lease, error),
                })
            }
            _ if runner == Runner::Processor
                && is_waiting(&item, status, now)?
                && request_item::runner(&item)? == Runner::Worker =>
            {
                Ok(Claimed::ForWorker)
            }
            _ => Ok(Claimed::NotPending(status)),
        }
    }

    pub(super) async fn claim_oldest(
        &self,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        let list = self.list(&STATUS_TIME, self.status_shards(Status::Pending));
        let mut page = PageRequest::first(Self::DEQUEUE_LIMIT);
        let mut refused = Vec::new();
        loop {
            let (oldest, next) = list.keys(&page).await?;
            for entry in oldest {
                let key = RequestKey::from_stored(entry.key);
                match self.claim_pending(&key, owner, Runner::Worker, now, lease_end).await {
                    // Somebody was quicker than the index.
                    Ok(Claimed::NotPending(_) | Claimed::Missing | Claimed::ForWorker) => {}
                    Ok(ours @ (Claimed::Won(..) | Claimed::Unreadable(..) | Claimed::OutOfReach(..))) => {
                        return Ok(Some(ours));
                    }
                    Err(error) if error.is_transient() => return Err(error),
                    // It stays the oldest: whoever stops at it never comes to the others.
                    Err(error) => refused.push(error),
                }
            }
            match next {
                Some(next) if refused.len() < Self::DEQUEUE_REFUSALS => page = page.after(next),
                _ => return refused.into_iter().next().map_or(Ok(None), Err),
            }
        }
    }
}
