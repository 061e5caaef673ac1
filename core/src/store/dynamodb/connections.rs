use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::codec::{Item, Reader, s, time};
use super::connection_item;
use super::error::{Refusal, store_error};
use super::index::{Index, List, Order};
use crate::ids::{ConnectionId, TenantId, UserId, user_key};
use crate::ports::Timestamp;
use crate::store::{Connection, ConnectionStore, Page, PageRequest, StoreError, StoreErrorKind};

/// A [`ConnectionStore`] on a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoConnectionStore {
    client: Client,
    table: String,
}

impl DynamoConnectionStore {
    /// Maximum number of stale connections that are deleted concurrently.
    const CONCURRENT_DELETES: usize = 8;

    /// Creates a store on the table named `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn context(&self, operation: &str, id: &ConnectionId) -> String {
        format!("{operation} connection {id} in table {}", self.table)
    }

    async fn list(
        &self,
        index: &'static Index,
        shard: String,
        page: PageRequest,
    ) -> Result<Page<Connection>, StoreError> {
        let (client, table, order) = (&self.client, &self.table, Order::OldestFirst);
        let list = List { client, table, index, shards: vec![shard], order };
        list.page(page, None, |item| connection_item::decode(item).map(Some)).await
    }

    /// Deletes the connection of `item` if its last activity is still before `last_ping_before`. Returns whether the
    /// connection was deleted.
    async fn delete_if_stale(&self, item: Item, last_ping_before: Timestamp) -> Result<bool, StoreError> {
        let id = ConnectionId::from(Reader::new(&item, connection_item::KEY).string(connection_item::KEY)?);
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(connection_item::KEY, connection_item::key(&id))
            .condition_expression("last_ping < :before")
            .expression_attribute_values(":before", time(last_ping_before));
        match delete.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(true),
            Err(Refusal::Condition(_)) => Ok(false),
            Err(Refusal::Other(failure)) => Err(failure.in_context(self.context("delete stale", &id))),
        }
    }
}

/// Index of connections by user.
static USER_CONNECTIONS: Index = Index {
    name: "user-connections",
    partition: "user_key",
    sort: "connected_at",
    key: connection_item::KEY,
    table_key,
};

/// Index of connections by tenant.
static TENANT_CONNECTIONS: Index = Index {
    name: "tenant-connections",
    partition: "tenant_id",
    sort: "connected_at",
    key: connection_item::KEY,
    table_key,
};

fn table_key(id: &str) -> Item {
    Item::from([(connection_item::KEY.to_owned(), s(id))])
}

impl ConnectionStore for DynamoConnectionStore {
    async fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        let user = user_key(&connection.identity.tenant, &connection.identity.user);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(connection_item::encode(connection)))
            .condition_expression("attribute_not_exists(connection_id) OR user_key = :user")
            .expression_attribute_values(":user", s(user));
        match put.send().await.map_err(Refusal::from) {
            Ok(_) => Ok(()),
            Err(Refusal::Condition(_)) => {
                let problem =
                    self.context("save", &connection.id) + ": the id belongs to a connection of another user";
                Err(StoreError::new(StoreErrorKind::AlreadyExists, problem))
            }
            Err(Refusal::Other(failure)) => Err(failure.in_context(self.context("save", &connection.id))),
        }
    }

    async fn get(&self, id: &ConnectionId) -> Result<Option<Connection>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(connection_item::KEY, connection_item::key(id))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(self.context("get", id), error))?;
        Ok(found.item.as_ref().map(connection_item::decode).transpose()?)
    }

    async fn delete(&self, id: &ConnectionId) -> Result<Option<Connection>, StoreError> {
        let deleted = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(connection_item::KEY, connection_item::key(id))
            .return_values(ReturnValue::AllOld)
            .send()
            .await
            .map_err(|error| store_error(self.context("delete", id), error))?;
        Ok(deleted.attributes.as_ref().map(connection_item::decode).transpose()?)
    }

    async fn list_by_user(
        &self,
        tenant: &TenantId,
        user: &UserId,
        page: PageRequest,
    ) -> Result<Page<Connection>, StoreError> {
        self.list(&USER_CONNECTIONS, user_key(tenant, user), page).await
    }

    async fn list_by_tenant(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> Result<Page<Connection>, StoreError> {
        self.list(&TENANT_CONNECTIONS, tenant.as_str().to_owned(), page).await
    }

    async fn update_last_ping(&self, id: &ConnectionId, now: Timestamp) -> Result<(), StoreError> {
        const OPERATION: &str = "update last_ping of";
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(connection_item::KEY, connection_item::key(id))
            .update_expression("SET last_ping = :now")
            .condition_expression("last_ping < :now")
            .expression_attribute_values(":now", time(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match update.send().await.map_err(Refusal::from) {
            // The condition failed on an existing connection, so its stored activity time is not before `now`.
            Ok(_) | Err(Refusal::Condition(Some(_))) => Ok(()),
            Err(Refusal::Condition(None)) => {
                Err(StoreError::new(StoreErrorKind::NotFound, self.context(OPERATION, id)))
            }
            Err(Refusal::Other(failure)) => Err(failure.in_context(self.context(OPERATION, id))),
        }
    }

    async fn delete_stale(&self, last_ping_before: Timestamp) -> Result<usize, StoreError> {
        let scan = self
            .client
            .scan()
            .table_name(&self.table)
            .filter_expression("last_ping < :before")
            .projection_expression(connection_item::KEY)
            .expression_attribute_values(":before", time(last_ping_before));
        let context = format!("scan table {}", self.table);
        let (mut start, mut deleted) = (None, 0);
        loop {
            let read = scan.clone().set_exclusive_start_key(start).send().await;
            let read = read.map_err(|error| store_error(context.clone(), error))?;
            let deletes = stream::iter(read.items.unwrap_or_default())
                .map(|item| self.delete_if_stale(item, last_ping_before))
                .buffer_unordered(Self::CONCURRENT_DELETES);
            deleted += deletes
                .try_fold(0, |count, was_stale| async move { Ok(count + usize::from(was_stale)) })
                .await?;
            start = read.last_evaluated_key;
            if start.is_none() {
                return Ok(deleted);
            }
        }
    }
}

#[cfg(test)]
mod tests;
