use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoRequestQueue;
use super::terminal::{EndIf, TerminalWrite};
use crate::bugs::{self, Bug};
use crate::ids::{ConnectionId, RequestId, RequestKey};
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::{Item, n, s};
use crate::store::dynamodb::error::Refusal;
use crate::store::dynamodb::request_item::{self, Encoded};
use crate::store::dynamodb::write::{Put, transact};
use crate::store::{Cancelled, Enqueued, Request, Status, StoreError, StoreErrorKind, SubmitRequests};

/// Condition: no request with this key exists, or the time to live of the existing request has passed.
///
/// DynamoDB deletes expired items with a delay, so an expired request is treated as deleted. A request whose dead
/// letter still has to be sent keeps its id even after its time to live.
const IS_NEW: &str =
    "attribute_not_exists(request_id) OR (#ttl < :now AND attribute_not_exists(dead_letter))";

impl DynamoRequestQueue {
    /// Maximum number of tries to cancel a request. A try is repeated if the request's status has changed
    /// concurrently.
    const CANCEL_TRIES: u32 = 4;

    async fn existing(&self, key: &RequestKey, old: Option<Item>) -> Result<Enqueued, StoreError> {
        let old = old.ok_or_else(|| {
            let problem = self.context("enqueue", key) + ": DynamoDB did not return the existing item";
            StoreError::new(StoreErrorKind::Misuse, problem)
        })?;
        Ok(Enqueued::Existing(Box::new(self.read_request(key, &old).await?)))
    }

    async fn cancel_if(
        &self,
        key: &RequestKey,
        end_if: EndIf<'_>,
        now: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        let context = || self.context("cancel", key);
        let now_cancelled = async |item: Item| {
            Ok(Cancelled::Now {
                subscribers: request_item::subscribers(&item)?,
                seq: request_item::seq(&item)?,
                epoch: request_item::epoch(&item)?,
                part_ttls_set: self.try_release_parts(key, &item).await,
            })
        };
        for _ in 0..Self::CANCEL_TRIES {
            let unclaimed = [Status::Pending, Status::Retrying];
            let write = TerminalWrite::cancelled();
            let old = match self.end_without_lease(key, &unclaimed, end_if, write, now).await {
                Ok(item) => return now_cancelled(item).await,
                Err(Refusal::Condition(Some(old))) => old,
                Err(Refusal::Condition(None)) => {
                    return Err(StoreError::new(StoreErrorKind::NotFound, context()));
                }
                Err(Refusal::Other(failure)) => return Err(failure.in_context(context())),
            };
            match request_item::status_and_lease(&old)?.0 {
                Status::Pending | Status::Processing | Status::Retrying
                    if end_if.is_forbidden_by(&old)? =>
                {
                    return Ok(Cancelled::HasOtherSubscribers);
                }
                Status::Pending | Status::Retrying => {}
                Status::Processing => match self.request_cancel(key, end_if).await {
                    Ok(()) => return Ok(Cancelled::Requested),
                    Err(Refusal::Condition(_)) => {}
                    Err(Refusal::Other(failure)) => return Err(failure.in_context(context())),
                },
                // The cancellation time equals `now`, so an earlier try of our write has succeeded, and its response
                // was lost.
                Status::Cancelled if request_item::finished_at(&old)? == Some(now) => {
                    return now_cancelled(old).await;
                }
                terminal @ (Status::Completed | Status::Failed | Status::Cancelled) => {
                    return Ok(Cancelled::Ended(terminal));
                }
            }
        }
        let problem = context() + ": the request's status changed during every try";
        Err(StoreError::new(StoreErrorKind::ConditionLost, problem))
    }

    /// Sets the cancel flag, which asks the running attempt to stop.
    async fn request_cancel(&self, key: &RequestKey, end_if: EndIf<'_>) -> Result<(), Refusal> {
        let update = end_if
            .condition(self.update(key), "#status = :processing".to_owned())
            .expression("SET cancel_requested = :requested")
            .name("#status", "status")
            .value(":processing", s(Status::Processing.as_str()))
            .value(":requested", AttributeValue::Bool(true));
        update.send(&self.client).await.map(drop)
    }
}

impl SubmitRequests for DynamoRequestQueue {
    async fn enqueue(&self, request: &Request) -> Result<Enqueued, StoreError> {
        let key = request.key();
        let timer_at = self.unclaimed_at(request.runner, request.created_at);
        let Encoded { item, parts } = request_item::encode(request, Some(timer_at), self.settings.shards);
        let item = if bugs::is(Bug::TtlAtEnqueue) {
            let ttl = n((request.created_at + self.settings.ttl).as_secs());
            item.into_iter().chain([("ttl".to_owned(), ttl)]).collect()
        } else {
            item
        };
        let put = Put::new(&self.table, item)
            .condition(IS_NEW)
            .name("#ttl", "ttl")
            .value(":now", n(request.created_at.as_secs()));
        let written = if parts.is_empty() {
            put.send(&self.client).await
        } else {
            let parts = parts.into_iter().map(|part| Put::new(&self.table, part).into_transact_item());
            transact(&self.client, std::iter::once(put.into_transact_item()).chain(parts)).await
        };
        match written {
            Ok(()) => Ok(Enqueued::New),
            Err(Refusal::Condition(old)) => self.existing(&key, old).await,
            Err(Refusal::Other(failure)) => Err(failure.in_context(self.context("enqueue", &key))),
        }
    }

    async fn cancel(&self, key: &RequestKey, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.cancel_if(key, EndIf::Always, now).await
    }

    async fn cancel_unless_subscribed(
        &self,
        key: &RequestKey,
        connection: &ConnectionId,
        now: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        self.cancel_if(key, EndIf::NoOtherSubscriber(connection), now).await
    }

    async fn record_redrive(
        &self,
        key: &RequestKey,
        epoch: u64,
        as_request: &RequestId,
    ) -> Result<(), StoreError> {
        let context = || self.context("record the redrive of", key);
        let update = self
            .update(key)
            .expression("SET redriven_as = :id")
            .condition("#status = :failed AND epoch = :epoch")
            .name("#status", "status")
            .value(":failed", s(Status::Failed.as_str()))
            .value(":epoch", n(epoch))
            .value(":id", s(as_request.as_str()));
        match update.send(&self.client).await {
            Ok(_) => Ok(()),
            Err(Refusal::Condition(_)) => Err(StoreError::new(StoreErrorKind::NotFound, context())),
            Err(Refusal::Other(failure)) => Err(failure.in_context(context())),
        }
    }
}
