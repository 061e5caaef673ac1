//! Reads and writes of part items, the separate items that hold a request's large values.
//!
//! The request's own item names its part items. A part item is written before the request's item or in the same
//! transaction, and is read after the request's item.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use super::DynamoRequestQueue;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::{Item, n, s};
use crate::store::dynamodb::error::{Refusal, store_error};
use crate::store::dynamodb::{part_item, request_item};
use crate::store::{Request, StoreError};
use crate::telemetry::Causes;

impl DynamoRequestQueue {
    /// Time for which part items outlive their request. DynamoDB deletes expired items with a delay, and a request
    /// that is still stored without its part items is corrupt.
    const PART_GRACE: Duration = Duration::from_hours(2 * 24);
    /// Maximum number of reads of a request's part items while the store does not respond.
    const PART_TRIES: u32 = 4;
    /// Pause before the second read of part items; doubled before each further read.
    const PART_PAUSE: Duration = Duration::from_millis(100);
    /// Maximum time for which the delivery of the terminal frame waits until the time to live of part items is set.
    const RELEASE_PATIENCE: Duration = Duration::from_millis(200);

    /// Reads the part items that a request's item names, and decodes the request.
    pub(super) async fn read_request(&self, key: &RequestKey, item: &Item) -> Result<Request, StoreError> {
        let parts = request_item::parts(item)?.into_iter().map(|part| self.part(key, part));
        let parts: Vec<Item> = try_join_all(parts).await?.into_iter().flatten().collect();
        Ok(request_item::decode(item, &parts)?)
    }

    /// Decodes a request with its result, but does not read part items for payload and checkpoint. A payload in a
    /// part item becomes null, and a checkpoint in a part item becomes `None`.
    pub(super) async fn without_big_input(
        &self,
        key: &RequestKey,
        mut item: Item,
    ) -> Result<Request, StoreError> {
        if item.remove("payload_part").is_some() {
            item.insert("payload".to_owned(), s("null"));
        }
        item.remove("checkpoint_part");
        self.read_request(key, &item).await
    }

    /// Calls [`read_request`](Self::read_request), with retries while the store does not respond. The caller has just
    /// claimed the request, so an error would waste an attempt.
    pub(super) async fn read_request_with_retries(
        &self,
        key: &RequestKey,
        item: &Item,
    ) -> Result<Request, StoreError> {
        let mut pause = Self::PART_PAUSE;
        for _ in 1..Self::PART_TRIES {
            match self.read_request(key, item).await {
                Err(error) if error.is_transient() => sleep(pause).await,
                read => return read,
            }
            pause *= 2;
        }
        self.read_request(key, item).await
    }

    async fn part(&self, key: &RequestKey, part: &str) -> Result<Option<Item>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(part_item::key(key, part)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(self.context("get part item of", key), error))?;
        Ok(found.item)
    }

    /// Writes an attempt's result to a part item, and returns the part item's name.
    ///
    /// The result is invisible until the terminal write names this part item in the request's own item.
    pub(super) async fn put_result(
        &self,
        key: &RequestKey,
        epoch: u64,
        result: String,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let part = part_item::result_part(epoch);
        let ttl = (now + self.settings.ttl + Self::PART_GRACE).as_secs();
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(part_item::encode(key, &part, result, Some(ttl))))
            .send()
            .await
            .map_err(|error| store_error(self.context("store the result of", key), error))?;
        Ok(part)
    }

    /// Sets the time to live of a request's part items right after the terminal write. Returns `true` if every part
    /// item now has a time to live.
    ///
    /// A failure or timeout does not delay delivery, because `record_delivery` sets the time to live again before the
    /// request leaves the timer index.
    pub(super) async fn try_release_parts(&self, key: &RequestKey, terminal: &Item) -> bool {
        match timeout(Self::RELEASE_PATIENCE, self.release_parts(key, terminal)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    request = %key,
                    error = %Causes(&error),
                    "setting TTL of part items failed; retried after delivery"
                );
                false
            }
            Err(_) => {
                tracing::warn!(request = %key, "setting TTL of part items timed out; retried after delivery");
                false
            }
        }
    }

    /// Sets the time to live of a terminal request's part items, except for the result, which already has a time to
    /// live.
    ///
    /// Runs before the request leaves the timer index, so that the sweeper repeats a failed call.
    pub(super) async fn release_parts(&self, key: &RequestKey, terminal: &Item) -> Result<(), StoreError> {
        let Some(ttl) = request_item::ttl(terminal)? else { return Ok(()) };
        let ttl = ttl.saturating_add(Self::PART_GRACE.as_secs());
        let parts =
            request_item::open_parts(terminal)?.into_iter().map(|part| self.release_part(key, part, ttl));
        try_join_all(parts).await.map(|_| ())
    }

    async fn release_part(&self, key: &RequestKey, part: &str, ttl: u64) -> Result<(), StoreError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(part_item::key(key, part)))
            .update_expression("SET #ttl = :ttl")
            .condition_expression("attribute_exists(request_id)")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":ttl", n(ttl));
        match update.send().await.map_err(Refusal::from) {
            Ok(_) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Other(failure)) => {
                Err(failure.in_context(self.context(&format!("set the TTL of part item {part} of"), key)))
            }
        }
    }
}
