//! Big values: written before the item that names them, read after it.

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
    /// How much longer than the request its parts are kept for: deletion lags, and a request without them is corrupt.
    const PART_GRACE: Duration = Duration::from_hours(2 * 24);
    /// How often a part is read that is out of reach.
    const PART_TRIES: u32 = 4;
    const PART_PAUSE: Duration = Duration::from_millis(100);
    /// How long the delivery of the terminal frame waits until the parts have their time to live.
    const RELEASE_PATIENCE: Duration = Duration::from_millis(200);

    /// The request that an item holds, with the parts that it names.
    pub(super) async fn whole(&self, key: &RequestKey, item: &Item) -> Result<Request, StoreError> {
        let parts = request_item::parts(item)?.into_iter().map(|part| self.part(key, part));
        let parts: Vec<Item> = try_join_all(parts).await?.into_iter().flatten().collect();
        Ok(request_item::decode(item, &parts)?)
    }

    /// The request that an item holds, with its result, but without a payload or a checkpoint that lies in a part.
    pub(super) async fn without_big_input(
        &self,
        key: &RequestKey,
        mut item: Item,
    ) -> Result<Request, StoreError> {
        if item.remove("payload_part").is_some() {
            item.insert("payload".to_owned(), s("null"));
        }
        item.remove("checkpoint_part");
        self.whole(key, &item).await
    }

    /// As [`whole`](Self::whole), again and again while the store is out of reach: there is a lease to lose.
    pub(super) async fn whole_at_last(&self, key: &RequestKey, item: &Item) -> Result<Request, StoreError> {
        let mut pause = Self::PART_PAUSE;
        for _ in 1..Self::PART_TRIES {
            match self.whole(key, item).await {
                Err(error) if error.is_transient() => sleep(pause).await,
                read => return read,
            }
            pause *= 2;
        }
        self.whole(key, item).await
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
            .map_err(|error| store_error(self.context("get part of", key), error))?;
        Ok(found.item)
    }

    /// Writes the result of an attempt into a part of its own, and returns the part's name.
    ///
    /// Nobody sees it until the request names it.
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

    /// Right after a request has ended, gives its parts their time to live; says whether that is done, or not
    /// needed. Where it fails, or takes long, nobody waits for it: it comes again before the timer is cleared.
    pub(super) async fn release_at_once(&self, key: &RequestKey, ended: &Item) -> bool {
        match timeout(Self::RELEASE_PATIENCE, self.release_parts(key, ended)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(request = %key, error = %Causes(&error), "the request's parts are not released yet");
                false
            }
            Err(_) => {
                tracing::warn!(request = %key, "the request's parts are not released yet: the store takes long");
                false
            }
        }
    }

    /// Gives the parts of an ended request their time to live, but for its result's, which has it.
    ///
    /// It comes before the timer is cleared: where it fails, somebody looks at the request again.
    pub(super) async fn release_parts(&self, key: &RequestKey, ended: &Item) -> Result<(), StoreError> {
        let Some(ttl) = request_item::ttl(ended)? else { return Ok(()) };
        let ttl = ttl.saturating_add(Self::PART_GRACE.as_secs());
        let parts =
            request_item::open_parts(ended)?.into_iter().map(|part| self.release_part(key, part, ttl));
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
                Err(failure.in_context(self.context(&format!("release the {part} of"), key)))
            }
        }
    }
}
