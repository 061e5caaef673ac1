use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::codec::{Item, Reader, s, time};
use super::index::{Index, List};
use super::{Refusal, connection_item, store_error};
use crate::ids::{ConnectionId, TenantId, UserId, user_key};
use crate::ports::Timestamp;
use crate::store::{Connection, ConnectionStore, Page, PageRequest, StoreError, StoreErrorKind};

/// Connections in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoConnectionStore {
    client: Client,
    table: String,
}

impl DynamoConnectionStore {
    /// How many stale connections are forgotten at once.
    const DELETES_AT_ONCE: usize = 8;

    /// Connections in `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn context(&self, operation: &str, id: &ConnectionId) -> String {
        format!("{operation} connection {id} in table {}", self.table)
    }

    /// An error of a write whose condition failed, as `lost` says, or that was refused for another reason.
    fn refused<E>(
        &self,
        refusal: Refusal<E>,
        lost: StoreErrorKind,
        operation: &str,
        id: &ConnectionId,
    ) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let context = self.context(operation, id);
        match refusal {
            Refusal::Condition(_) => StoreError::new(lost, context),
            Refusal::Other(error) => store_error(context, error),
        }
    }

    async fn list(
        &self,
        index: &'static Index,
        shard: String,
        page: PageRequest,
    ) -> Result<Page<Connection>, StoreError> {
        let list = List { client: &self.client, table: &self.table, index, shards: vec![shard], until: None };
        list.page(page, None, |item| connection_item::decode(item).map(Some)).await
    }

    /// Forgets the connection of this item if it is stale (still), and says whether it was.
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
            Err(Refusal::Other(error)) => Err(store_error(self.context("delete stale", &id), error)),
        }
    }
}

/// The connections of a user.
static USER_CONNECTIONS: Index = Index {
    name: "user-connections",
    partition: "user_key",
    sort: "connected_at",
    key: connection_item::KEY,
    table_key,
};

/// The connections of a tenant.
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
            Err(refusal) => Err(self.refused(refusal, StoreErrorKind::AlreadyExists, "save", &connection.id)),
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
            // It is there, and has given a sign of life since.
            Ok(_) | Err(Refusal::Condition(Some(_))) => Ok(()),
            Err(refusal) => {
                Err(self.refused(refusal, StoreErrorKind::NotFound, "note a sign of life of", id))
            }
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
                .buffer_unordered(Self::DELETES_AT_ONCE);
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
mod tests {
    use aws_sdk_dynamodb::operation::get_item::{GetItemError, GetItemOutput};
    use aws_sdk_dynamodb::operation::put_item::PutItemOutput;
    use aws_sdk_dynamodb::types::error::{ProvisionedThroughputExceededException, ResourceNotFoundException};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;
    use crate::ports::Timestamp;
    use crate::store::{Identity, StoreErrorKind};

    fn connection() -> Connection {
        Connection {
            id: "c1".into(),
            identity: Identity {
                user: "ann".into(),
                tenant: "acme".into(),
                permissions: vec!["reports".into()],
                expires_at: Timestamp::from_secs(2),
            },
            endpoint: "https://api.example/prod".into(),
            connected_at: Timestamp::from_secs(1),
            last_ping: Timestamp::from_secs(1),
            metadata: [("source_ip".to_owned(), "127.0.0.1".to_owned())].into(),
        }
    }

    #[tokio::test]
    async fn a_connection_is_read_consistently_by_its_key() {
        let rule = mock!(Client::get_item)
            .match_requests(|request| {
                request.consistent_read() == Some(true)
                    && request.table_name() == Some("connections")
                    && request.key().is_some_and(|key| key["connection_id"].as_s().unwrap() == "c1")
            })
            .then_output(|| {
                GetItemOutput::builder().set_item(Some(connection_item::encode(&connection()))).build()
            });
        let store = DynamoConnectionStore::new(mock_client!(aws_sdk_dynamodb, [&rule]), "connections");
        assert_eq!(store.get(&"c1".into()).await.unwrap(), Some(connection()));
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_saved_connection_carries_its_keys_and_its_end() {
        let rule = mock!(Client::put_item)
            .match_requests(|request| {
                let item = request.item().unwrap();
                item["user_key"].as_s().unwrap() == "acme/ann" && item["ttl"].as_n().unwrap() == "86401"
            })
            .then_output(|| PutItemOutput::builder().build());
        let store = DynamoConnectionStore::new(mock_client!(aws_sdk_dynamodb, [&rule]), "connections");
        store.save(&connection()).await.unwrap();
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_say_what_to_do_and_keep_their_source() {
        let throttled = mock!(Client::get_item).then_error(|| {
            GetItemError::ProvisionedThroughputExceededException(
                ProvisionedThroughputExceededException::builder()
                    .meta(
                        aws_sdk_dynamodb::error::ErrorMetadata::builder()
                            .code("ProvisionedThroughputExceededException")
                            .build(),
                    )
                    .build(),
            )
        });
        let missing = mock!(Client::get_item).then_error(|| {
            GetItemError::ResourceNotFoundException(
                ResourceNotFoundException::builder()
                    .message("Requested resource not found")
                    .meta(
                        aws_sdk_dynamodb::error::ErrorMetadata::builder()
                            .code("ResourceNotFoundException")
                            .build(),
                    )
                    .build(),
            )
        });
        for (rule, kind, transient) in
            [(throttled, StoreErrorKind::Throttled, true), (missing, StoreErrorKind::Misuse, false)]
        {
            let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&rule]);
            let error =
                DynamoConnectionStore::new(client, "connections").get(&"c1".into()).await.unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), (kind, transient));
            assert!(error.to_string().contains("get connection c1 in table connections"), "{error}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
