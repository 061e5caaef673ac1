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

/// Settings of a [`DynamoRequestQueue`].
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Number of shards of the indexes `status-time` and `timers`. Default 8. Must not change during the life of a
    /// stage (a deployed or local installation).
    pub shards: u8,
    /// Time from a request's terminal write until DynamoDB may delete the request. Default 7 days.
    pub ttl: Duration,
    /// Time after which a pending request that no processor has claimed becomes due for the sweeper. Default 60 s.
    pub unclaimed_after: Duration,
    /// Time after which a pending request that the worker has not claimed becomes due for the sweeper. Default 150 s,
    /// which is longer than an asynchronous invocation may wait in Lambda's queue.
    pub unclaimed_by_worker_after: Duration,
    /// Time after which a terminal request that is not delivered to every subscriber becomes due for the sweeper.
    /// Default 30 s.
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
    /// Reads the environment variable `REQUEST_TTL_S`, which the module [`lambda`](crate::lambda) documents. Other
    /// settings have their defaults.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self { ttl: environment.seconds("REQUEST_TTL_S", defaults.ttl, 3_600..=31_536_000), ..defaults }
    }
}

/// A [`RequestQueue`](crate::store::RequestQueue) on a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoRequestQueue {
    client: Client,
    table: String,
    settings: QueueSettings,
}

impl DynamoRequestQueue {
    /// Creates a queue on the table named `table`.
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

    /// Returns the time at which the sweeper must handle a request that becomes pending at `now`, unless `runner`
    /// claims the request earlier.
    fn unclaimed_at(&self, runner: Runner, now: Timestamp) -> Timestamp {
        now + match runner {
            Runner::Processor => self.settings.unclaimed_after,
            Runner::Worker => self.settings.unclaimed_by_worker_after,
        }
    }
}

#[cfg(test)]
mod tests;
