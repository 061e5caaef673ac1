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
