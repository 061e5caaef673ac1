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

/// `$connect`: lets in whoever has a valid token, and keeps whose connection it is.
#[derive(Debug)]
pub struct Connect<C> {
    verifier: TokenVerifier,
    connections: C,
    clock: Arc<dyn Clock>,
}

/// The most that is kept of what a client says of itself, in bytes: its headers may have 8 KiB.
const MAX_METADATA_BYTES: usize = 256;

/// The token that a client brought, and the subprotocol that it expects to be answered with.
struct Credentials<'a> {
    token: Option<&'a str>,
    subprotocol: Option<&'a str>,
}

impl<C: ConnectionStore> Connect<C> {
    /// Lets in whom `verifier` trusts.
    #[must_use]
    pub fn new(verifier: TokenVerifier, connections: C, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, connections, clock }
    }

    /// 200 opens the connection, 401 refuses it with a body that says why in a code. Before `deadline`, when the invocation
    /// ends, there is an answer.
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
                // Anybody can cause this, at will.
                tracing::debug!(code = refused.code(), "connection refused");
                return error_reply(401, refused.code(), &refused.to_string());
            }
        };
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("the event has no connection id");
            return internal_error();
        };
        let facts = [
            ("source_ip", context.identity.source_ip.as_deref()),
            ("user_agent", context.identity.user_agent.as_deref()),
        ];
        let connection = Connection {
            id,
            identity,
            endpoint: endpoint(event),
            connected_at: now,
            last_ping: now,
            metadata: facts
                .into_iter()
                .filter_map(|(key, fact)| Some((key.to_owned(), shortened(fact?).to_owned())))
                .collect::<BTreeMap<_, _>>(),
        };
        match in_time(now, deadline, self.connections.save(&connection)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(connection = %connection.id, error = %Causes(&error), "the connection was not saved");
                return internal_error();
            }
            None => {
                tracing::error!(connection = %connection.id, "the connection was not saved in time");
                return internal_error();
            }
        }
        let Connection { id, identity, .. } = connection;
        tracing::info!(connection = %id, user = %identity.user, tenant = %identity.tenant, "connected");
        let mut accepted = reply(200, None);
        // A browser gives up a connection whose offer of subprotocols is not answered with one of them.
        if let Some(Ok(subprotocol)) = subprotocol.map(HeaderValue::from_str) {
            accepted.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        accepted
    }
}

/// The `connect` function as it runs on Lambda.
pub type LambdaConnect = Connect<DynamoConnectionStore>;

/// What the `connect` function has read from its environment.
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
        let client = setup.aws.dated_by(&host.clock).dynamodb();
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

fn shortened(fact: &str) -> &str {
    let end = fact.floor_char_boundary(MAX_METADATA_BYTES);
    &fact[..end]
}

/// The token: from the query, else the `Authorization` header, else among the offered subprotocols.
///
/// An empty value counts as none: clients build URLs from tokens that they may not have.
fn credentials(event: &ApiGatewayWebsocketProxyRequest) -> Credentials<'_> {
    let offered: Vec<&str> = text(&event.headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let in_query = |name: &str| given(event.query_string_parameters.first(name)?);
    let in_header = || given(text(&event.headers, &header::AUTHORIZATION)?);
    let in_subprotocols = || offered.iter().copied().find(|name| looks_like_a_token(name));
    let token =
        in_query("Authorization").or_else(|| in_query("token")).or_else(in_header).or_else(in_subprotocols);
    let named = offered.iter().find(|name| !looks_like_a_token(name));
    Credentials { token, subprotocol: named.or(offered.first()).copied() }
}

/// Told apart from the name of a subprotocol, such as `wamp.2.json`, by the `{"` that its header begins with.
fn looks_like_a_token(name: &str) -> bool {
    name.starts_with("ey") && name.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The token in a value, with or without the scheme `Bearer` before it.
fn given(value: &str) -> Option<&str> {
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
    error_reply(500, "INTERNAL_ERROR", "Something on our side went wrong: try again")
}

fn error_reply(status: i64, code: &str, message: &str) -> ApiGatewayProxyResponse {
    let mut refused = reply(status, Some(json!({"code": code, "message": message}).to_string()));
    refused.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    refused
}
