use super::DynamoRequestQueue;
use super::read::STATUS_TIME;
use crate::bugs::{self, Bug};
use crate::ids::RequestKey;
use crate::lifecycle::LEASE_GRACE;
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::{Item, n, s, time};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::request_item::{self, RUNNER};
use crate::store::{ClaimRequests, Claimed, PageRequest, Runner, Status, StoreError};

/// Condition: the request waits for a claim, because it is pending, or because its retry is due. For a retrying
/// request, `timer_at` is the due time.
const IS_WAITING: &str =
    "#status = :pending OR (#status = :retrying AND timer_at <= :now AND attempt < max_attempts)";

/// Condition: the request was not claimed with this owner token before.
///
/// Each claim has a fresh owner token. If the token is already stored, the call is a late SDK retry of a claim that
/// succeeded. A second success would lease the request to an attempt that no longer exists.
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
    /// Number of index entries per page that `dequeue` reads and tries to claim.
    const DEQUEUE_LIMIT: usize = 10;
    /// Number of permanently failed claims after which `dequeue` stops: this many failures have a cause in the table
    /// or its IAM policy, not in single requests.
    const DEQUEUE_REFUSALS: usize = 100;
}

impl ClaimRequests for DynamoRequestQueue {
    async fn claim(
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
        let may_claim = bugs::instead(
            Bug::ClaimUnconditional,
            format!("attribute_exists(request_id) OR {may_claim}"),
            may_claim,
        );
        let update = self
            .update(key)
            .expression(
                "SET #status = :processing, status_shard = :shard, epoch = epoch + :one, \
                 attempt = attempt + :one, #owner = :owner, lease_expires_at = :lease_end, \
                 started_at = :now, timer_shard = :timer_shard, timer_at = :timer",
            )
            .condition(may_claim)
            .name("#status", "status")
            .name("#owner", "owner")
            .value(":pending", s(Status::Pending.as_str()))
            .value(":retrying", s(Status::Retrying.as_str()))
            .value(":processing", s(Status::Processing.as_str()))
            .value(":shard", self.status_shard(Status::Processing, key))
            .value(":one", n(1))
            .value(":owner", s(owner))
            .value(":lease_end", time(lease_end))
            .value(":now", time(now))
            .value(":timer_shard", self.timer_shard(key))
            .value(":timer", time(lease_end + LEASE_GRACE))
            .returning_item();
        let (item, won) = match update.send(&self.client).await {
            Ok(updated) => (updated, true),
            Err(Refusal::Condition(Some(old))) => (old, false),
            Err(Refusal::Condition(None)) => return Ok(Claimed::Missing),
            Err(Refusal::Other(failure)) => return Err(failure.in_context(self.context("claim", key))),
        };
        // Only status and lease are decoded here. If a different claim holds the request, the item's other attributes
        // do not matter, and an invalid attribute must not fail this call.
        let (status, lease) = request_item::status_and_lease(&item)?;
        match lease {
            // If the item has the owner token of this claim, an earlier try of the claim has succeeded, and its
            // response was lost.
            Some(lease) if won || (status == Status::Processing && lease.owner == owner) => {
                Ok(match self.read_request_with_retries(key, &item).await {
                    Ok(request) => Claimed::Won(Box::new(request), lease),
                    Err(error) if error.is_transient() => Claimed::Unreachable(lease, error),
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

    async fn dequeue(
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
                match self.claim(&key, owner, Runner::Worker, now, lease_end).await {
                    // A different function has claimed the request, or the request was deleted, after the index
                    // query.
                    Ok(Claimed::NotPending(_) | Claimed::Missing | Claimed::ForWorker) => {}
                    Ok(claimed @ (Claimed::Won(..) | Claimed::Unreadable(..) | Claimed::Unreachable(..))) => {
                        return Ok(Some(claimed));
                    }
                    Err(error) if error.is_transient() => return Err(error),
                    // The failing request stays the oldest of the list. Returning its error now would block all later
                    // requests.
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
