#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use aws_sdk_dynamodb::config::SharedHttpClient;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::reply::{in_time, reply};
use super::{Function, Host};
use crate::app::App;
use crate::auth::{TokenKey, TokenRefused, TokenVerifier};
use crate::aws::AwsEnvironment;
use crate::config::{ConfigError, Environment};
use crate::ids::ConnectionId;
use crate::ports::{Clock, Timestamp};
use crate::store::dynamodb::DynamoConnectionStore;
use crate::store::{Connection, ConnectionStore, StoreError};
use crate::telemetry::Causes;

/// The `connect` function: handles the gateway's `$connect` event.
///
/// It accepts a client with a valid token, and stores the connection with the user and tenant from the token.
#[derive(Debug)]
pub struct Connect<C> {
    verifier: TokenVerifier,
    connections: C,
    clock: Arc<dyn Clock>,
}

/// Maximum length of each stored property of a client, such as its user agent, in bytes. Longer values are
/// truncated, because a client's headers may have up to 8 KiB.
const MAX_METADATA_BYTES: usize = 256;

/// The token that a client sent, and the WebSocket subprotocol to select in the reply.
struct Credentials<'a> {
    token: Option<&'a str>,
    subprotocol: Option<&'a str>,
}

impl<C: ConnectionStore> Connect<C> {
    /// Creates a function that accepts a client if `verifier` accepts the client's token, and that stores the
    /// connection in `connections`.
    #[must_use]
    pub fn new(verifier: TokenVerifier, connections: C, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, connections, clock }
    }

    /// Handles a `$connect` event. Returns the reply before `deadline`, the end of the invocation.
    ///
    /// A reply with status 200 opens the connection. Status 401 means that the token was refused; the `code` in
    /// the JSON body is the reason. Status 500 means an internal error, for example because the connection could
    /// not be stored.
    pub async fn answer(
        &self,
        event: &ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> ApiGatewayProxyResponse {
        let now = self.clock.now();
        let Credentials { token, subprotocol } = credentials(event);
        let verified = token.ok_or(TokenRefused::Missing).and_then(|token| self.verifier.verify(token, now));
        let identity = match verified {
            Ok(identity) => identity,
            Err(refused) => {
                // Logged only at debug level, because any client can cause any number of refusals.
                tracing::debug!(code = refused.code(), "token refused; connection not opened");
                return error_reply(401, refused.code(), &refused.to_string());
            }
        };
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("connect event without connection id; connection not opened");
            return internal_error();
        };
        let properties = [
            ("source_ip", context.identity.source_ip.as_deref()),
            ("user_agent", context.identity.user_agent.as_deref()),
        ];
        let connection = Connection {
            id,
            identity,
            endpoint: endpoint(event),
            connected_at: now,
            last_ping: now,
            metadata: properties
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), truncated(value?).to_owned())))
                .collect::<BTreeMap<_, _>>(),
        };
        match in_time(now, deadline, self.connections.save(&connection)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(
                    connection = %connection.id, error = %Causes(&error),
                    "connection could not be stored; connection not opened"
                );
                return internal_error();
            }
            None => {
                tracing::error!(connection = %connection.id, "write of the connection timed out; connection not opened");
                return internal_error();
            }
        }
        let Connection { id, identity, .. } = connection;
        tracing::info!(connection = %id, user = %identity.user, tenant = %identity.tenant, "connection opened");
        let mut accepted = reply(200, None);
        // A browser that offers subprotocols closes the connection if the reply selects none of them.
        if let Some(Ok(subprotocol)) = subprotocol.map(HeaderValue::from_str) {
            accepted.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        accepted
    }
}

/// The `connect` function as it runs on Lambda, where it stores connections in DynamoDB.
pub type LambdaConnect = Connect<DynamoConnectionStore>;

/// Settings of the `connect` function, from its environment variables.
#[derive(Debug)]
pub struct ConnectSetup {
    aws: AwsEnvironment,
    key: TokenKey,
    connections: String,
}

impl Function for LambdaConnect {
    type Setup = ConnectSetup;
    type Event = ApiGatewayWebsocketProxyRequest;
    type Reply = ApiGatewayProxyResponse;

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<ConnectSetup> {
        let aws = AwsEnvironment::from_env(environment, http);
        let key = TokenKey::from_env(environment);
        let connections = environment.required("CONNECTIONS_TABLE");
        key.map(|key| ConnectSetup { aws, key, connections })
    }

    async fn start(
        setup: ConnectSetup,
        host: &Host,
        _: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        let verifier = setup.key.verifier(&setup.aws, host.clock.now()).await?;
        let client = setup.aws.with_clock(&host.clock).dynamodb();
        let store = DynamoConnectionStore::new(client, setup.connections);
        Ok(Self::new(verifier, store, Arc::clone(&host.clock)))
    }

    async fn handle(
        &self,
        event: ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> Result<ApiGatewayProxyResponse, StoreError> {
        Ok(self.answer(&event, deadline).await)
    }
}

fn truncated(value: &str) -> &str {
    let end = value.floor_char_boundary(MAX_METADATA_BYTES);
    &value[..end]
}

/// Returns the client's token, and the WebSocket subprotocol to select in the reply.
///
/// The token is taken from the first of these places that contains a token: the query, the header `Authorization`,
/// the offered subprotocols. An empty value counts as absent, because a client without a token may still send the
/// query parameter with an empty value.
fn credentials(event: &ApiGatewayWebsocketProxyRequest) -> Credentials<'_> {
    let offered: Vec<&str> = header_text(&event.headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let in_query = |name: &str| extract_token(event.query_string_parameters.first(name)?);
    let in_header = || extract_token(header_text(&event.headers, &header::AUTHORIZATION)?);
    let in_subprotocols = || offered.iter().copied().find(|name| looks_like_a_token(name));
    let token =
        in_query("Authorization").or_else(|| in_query("token")).or_else(in_header).or_else(in_subprotocols);
    let named = offered.iter().find(|name| !looks_like_a_token(name));
    Credentials { token, subprotocol: named.or(offered.first()).copied() }
}

/// Returns `true` if an offered subprotocol is a token, and `false` if it is a name such as `wamp.2.json`.
///
/// A token contains two dots, and begins with `ey`, which encodes the start of a JSON object, `{"`, in base64.
fn looks_like_a_token(name: &str) -> bool {
    name.starts_with("ey") && name.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the token in the value of a query parameter or header, without the scheme `Bearer`; `None` if the value
/// contains no token.
fn extract_token(value: &str) -> Option<&str> {
    let token = match value.trim_start().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token,
        _ => value,
    };
    Some(token.trim()).filter(|token| !token.is_empty())
}

fn endpoint(event: &ApiGatewayWebsocketProxyRequest) -> String {
    let domain = event.request_context.domain_name.as_deref().unwrap_or_default();
    let stage = event.request_context.stage.as_deref().unwrap_or_default();
    format!("https://{domain}/{stage}")
}

fn internal_error() -> ApiGatewayProxyResponse {
    error_reply(500, "INTERNAL_ERROR", "Internal server error; try again")
}

fn error_reply(status: i64, code: &str, message: &str) -> ApiGatewayProxyResponse {
    let mut refused = reply(status, Some(json!({"code": code, "message": message}).to_string()));
    refused.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    refused
}
