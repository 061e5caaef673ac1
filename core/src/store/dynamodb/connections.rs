use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnValue;

use super::{connection_item, store_error};
use crate::ids::ConnectionId;
use crate::store::{Connection, ConnectionStore, StoreError};

/// Connections in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoConnectionStore {
    client: Client,
    table: String,
}

impl DynamoConnectionStore {
    /// Connections in `table`.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn context(&self, operation: &str, id: &ConnectionId) -> String {
        format!("{operation} connection {id} in table {}", self.table)
    }
}

impl ConnectionStore for DynamoConnectionStore {
    async fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(connection_item::encode(connection)))
            .send()
            .await
            .map_err(|error| store_error(self.context("save", &connection.id), error))?;
        Ok(())
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
