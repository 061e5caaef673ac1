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
/// Accepts a client with a valid token, and stores the connection with the identity from the token.
#[derive(Debug)]
pub struct Connect<C> {
    verifier: TokenVerifier,
    connections: C,
    clock: Arc<dyn Clock>,
}

/// Maximum length of each stored property of a client, such as its user agent, in bytes. Longer values are
/// cut off, because a client's headers may have up to 8 KiB.
const MAX_METADATA_BYTES: usize = 256;

/// The token that a client sent, and the subprotocol to select in the reply.
struct Credentials<'a> {
    token: Option<&'a str>,
    subprotocol: Option<&'a str>,
}

impl<C: ConnectionStore> Connect<C> {
    /// Creates a function that accepts clients whose token passes `verifier`, and stores their connections in
    /// `connections`.
    #[must_use]
    pub fn new(verifier: TokenVerifier, connections: C, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, connections, clock }
    }

    /// Returns the reply to a `$connect` event, before `deadline`, the end of the invocation.
    ///
    /// Status 200 opens the connection. Status 401 refuses the client's token, with a JSON body whose `code`
    /// gives the reason. Status 500 reports an internal error, such as a connection that could not be stored.
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
                // Only at debug level, because any client can cause a refusal at will.
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
                    "connection could not be stored; not opened"
                );
                return internal_error();
            }
            None => {
                tracing::error!(connection = %connection.id, "connection write timed out; not opened");
                return internal_error();
            }
        }
        let Connection { id, identity, .. } = connection;
        tracing::info!(connection = %id, user = %identity.user, tenant = %identity.tenant, "connection opened");
        let mut accepted = reply(200, None);
        // A browser that offers subprotocols closes the connection unless the reply selects one of them.
        if let Some(Ok(subprotocol)) = subprotocol.map(HeaderValue::from_str) {
            accepted.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        accepted
    }
}

/// The `connect` function as it runs on Lambda, with DynamoDB as its connection store.
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

/// Finds the client's token, and the subprotocol to select in the reply.
///
/// The token comes from the query, otherwise from the `Authorization` header, otherwise from the offered
/// subprotocols. An empty value counts as absent, because clients build URLs from tokens that may be missing.
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

/// Returns whether an offered subprotocol is a token rather than a name such as `wamp.2.json`.
///
/// A token has two dots and begins with `ey`, which is `{"` in base64: the start of its JSON header.
fn looks_like_a_token(name: &str) -> bool {
    name.starts_with("ey") && name.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the token in a query parameter or header, without the scheme `Bearer`; `None` if there is no
/// token.
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
