use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};

use super::reply;
use crate::ids::ConnectionId;
use crate::ports::Clock;
use crate::store::ConnectionStore;
use crate::telemetry::Causes;

/// `$disconnect`: forgets a connection. Its requests go on: their client may come back for them.
#[derive(Debug)]
pub struct Disconnect<C> {
    connections: C,
    clock: Arc<dyn Clock>,
}

impl<C: ConnectionStore> Disconnect<C> {
    /// Forgets connections of this store.
    #[must_use]
    pub fn new(connections: C, clock: Arc<dyn Clock>) -> Self {
        Self { connections, clock }
    }

    /// Always 200, since nobody is left to be answered; what could not be deleted here expires by itself.
    pub async fn handle(&self, event: &ApiGatewayWebsocketProxyRequest) -> ApiGatewayProxyResponse {
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("the event has no connection id");
            return reply(200, None);
        };
        match self.connections.delete(&id).await {
            Ok(Some(connection)) => tracing::info!(
                connection = %id,
                user = %connection.identity.user,
                tenant = %connection.identity.tenant,
                open_ms = u64::try_from(self.clock.now().since(connection.connected_at).as_millis()).unwrap_or(u64::MAX),
                status_code = context.disconnect_status_code,
                reason = context.disconnect_reason,
                "disconnected"
            ),
            Ok(None) => tracing::info!(connection = %id, "disconnected, and was not known"),
            Err(error) => {
                tracing::error!(connection = %id, error = %Causes(&error), "the connection was not deleted, or cannot be read");
            }
        }
        reply(200, None)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::delete_item::{DeleteItemError, DeleteItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use serde_json::json;

    use super::*;
    use crate::ports::Timestamp;
    use crate::store::dynamodb::{DynamoConnectionStore, Item, connection_item};
    use crate::store::{Connection, Identity};

    const OK: &str = r#"{"statusCode":200,"headers":{},"multiValueHeaders":{},"isBase64Encoded":false}"#;

    #[derive(Debug)]
    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    /// As the gateway sends it when a client closes its socket without a reason.
    fn event() -> ApiGatewayWebsocketProxyRequest {
        let headers = json!({
            "Host": "abcde12345.execute-api.eu-west-1.amazonaws.com",
            "X-Forwarded-For": "",
            "x-api-key": "",
            "x-restapi": "",
        });
        let event = json!({
            "headers": headers,
            "multiValueHeaders": headers,
            "requestContext": {
                "routeKey": "$disconnect",
                "disconnectStatusCode": 1005,
                "eventType": "DISCONNECT",
                "extendedRequestId": "R1kmxc2VNjMCFIA=",
                "requestTime": "09/Feb/2024:18:23:30 +0000",
                "messageDirection": "IN",
                "disconnectReason": "Client-side close frame status not set",
                "stage": "prod",
                "connectedAt": 1_707_503_008_941_u64,
                "requestTimeEpoch": 1_707_503_010_486_u64,
                "identity": {"sourceIp": "192.0.2.1"},
                "requestId": "R1kmxc2VNjMCFIA=",
                "domainName": "abcde12345.execute-api.eu-west-1.amazonaws.com",
                "connectionId": "R1kmxcLQtjMCFxw=",
                "apiId": "abcde12345",
            },
            "isBase64Encoded": false,
        });
        serde_json::from_value(event).unwrap()
    }

    fn stored() -> Item {
        connection_item::encode(&Connection {
            id: "R1kmxcLQtjMCFxw=".into(),
            identity: Identity {
                user: "ann".into(),
                tenant: "acme".into(),
                permissions: Vec::new(),
                expires_at: Timestamp::from_secs(1_707_506_609),
            },
            endpoint: "https://api.example/prod".into(),
            connected_at: Timestamp::from_millis(1_707_503_009_250),
            last_ping: Timestamp::from_millis(1_707_503_009_250),
            metadata: [].into(),
        })
    }

    /// A table that answers a deletion of the event's connection, and of no other, with `old`.
    fn table_of(old: Option<Item>) -> Rule {
        mock!(Client::delete_item)
            .match_requests(|delete| {
                delete.table_name() == Some("connections")
                    && delete.key().is_some_and(|key| {
                        key["connection_id"] == AttributeValue::S("R1kmxcLQtjMCFxw=".to_owned())
                    })
            })
            .then_output(move || DeleteItemOutput::builder().set_attributes(old.clone()).build())
    }

    async fn reply(rule: &Rule, event: &ApiGatewayWebsocketProxyRequest) -> String {
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [rule]);
        let clock = Arc::new(At(Timestamp::from_millis(1_707_503_010_500)));
        let disconnect = Disconnect::new(DynamoConnectionStore::new(client, "connections"), clock);
        serde_json::to_string(&disconnect.handle(event).await).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_forgotten_whether_or_not_it_was_known() {
        let mut half = stored();
        half.remove("user_id");
        for old in [Some(stored()), None, Some(half)] {
            let rule = table_of(old);
            assert_eq!(reply(&rule, &event()).await, OK);
            assert_eq!(rule.num_calls(), 1);
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_is_not_the_gateways_business() {
        let failing =
            mock!(Client::delete_item).then_error(|| DeleteItemError::unhandled("the table is out of reach"));
        assert_eq!(reply(&failing, &event()).await, OK);
        assert_eq!(failing.num_calls(), 1);
    }

    #[tokio::test]
    async fn an_event_without_a_connection_id_deletes_nothing() {
        let mut event = event();
        event.request_context.connection_id = None;
        let rule = table_of(None);
        assert_eq!(reply(&rule, &event).await, OK);
        assert_eq!(rule.num_calls(), 0);
    }
}
