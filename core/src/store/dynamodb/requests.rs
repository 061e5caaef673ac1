use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use super::codec::{Item, s};
use super::error::store_error;
use super::request_item;
use super::write::Update;
use crate::config::Environment;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::{Runner, Status, StoreError};

mod claim;
mod parts;
mod read;
mod run;
mod submit;
mod subscribe;
mod sweep;
mod terminal;

/// How requests are kept.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Over how many shards the `status-time` and `timers` indexes are spread. Default 8; a stage keeps what it began with.
    pub shards: u8,
    /// How long an ended request is kept for. Default 7 days.
    pub ttl: Duration,
    /// After how long a request that no processor claims is due. Default 60 s.
    pub unclaimed_after: Duration,
    /// The same for one that the worker is to claim, or may be: longer than an asynchronous invocation may wait in Lambda's
    /// queue. Default 150 s.
    pub unclaimed_by_worker_after: Duration,
    /// After how long an ended request that has not reached every subscriber is due. Default 30 s.
    pub undelivered_after: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            shards: 8,
            ttl: Duration::from_hours(7 * 24),
            unclaimed_after: Duration::from_secs(60),
            unclaimed_by_worker_after: Duration::from_secs(150),
            undelivered_after: Duration::from_secs(30),
        }
    }
}

impl QueueSettings {
    /// Reads `REQUEST_TTL_S`, as [`lambda`](crate::lambda) has it.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self { ttl: environment.seconds("REQUEST_TTL_S", defaults.ttl, 3_600..=31_536_000), ..defaults }
    }
}

/// Requests in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoRequestQueue {
    client: Client,
    table: String,
    settings: QueueSettings,
}

impl DynamoRequestQueue {
    /// Requests in `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, settings: QueueSettings) -> Self {
        Self { client, table: table.into(), settings }
    }

    fn context(&self, operation: &str, key: &RequestKey) -> String {
        format!("{operation} request {key} in table {}", self.table)
    }

    async fn item(&self, key: &RequestKey) -> Result<Option<Item>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(request_item::key(key)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(self.context("get", key), error))?;
        Ok(found.item)
    }

    fn update(&self, key: &RequestKey) -> Update {
        Update::new(&self.table, request_item::key(key))
    }

    fn status_shard(&self, status: Status, key: &RequestKey) -> AttributeValue {
        s(request_item::status_shard(status, key, self.settings.shards))
    }

    fn timer_shard(&self, key: &RequestKey) -> AttributeValue {
        s(request_item::timer_shard(key, self.settings.shards))
    }

    /// When a request that is pending now, for this runner, is due.
    fn unclaimed_at(&self, runner: Runner, now: Timestamp) -> Timestamp {
        now + match runner {
            Runner::Processor => self.settings.unclaimed_after,
            Runner::Worker => self.settings.unclaimed_by_worker_after,
        }
    }
}

#[cfg(test)]
mod tests;
