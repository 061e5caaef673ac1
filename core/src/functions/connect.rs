use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::reply;
use crate::auth::{TokenRefused, TokenVerifier};
use crate::ids::ConnectionId;
use crate::ports::Clock;
use crate::store::{Connection, ConnectionStore};
use crate::telemetry::Causes;

/// `$connect`: lets in whoever has a valid token, and keeps whose connection it is.
#[derive(Debug)]
pub struct Connect<C> {
    verifier: TokenVerifier,
    connections: C,
    clock: Arc<dyn Clock>,
}

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

    /// 200 opens the connection, 401 refuses it with a body that says why in a code.
    pub async fn handle(&self, event: &ApiGatewayWebsocketProxyRequest) -> ApiGatewayProxyResponse {
        let now = self.clock.now();
        let Credentials { token, subprotocol } = credentials(event);
        let verified = token.ok_or(TokenRefused::Missing).and_then(|token| self.verifier.verify(token, now));
        let identity = match verified {
            Ok(identity) => identity,
            Err(refused) => {
                tracing::info!(code = refused.code(), "connection refused");
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
                .filter_map(|(key, fact)| Some((key.to_owned(), fact?.to_owned())))
                .collect::<BTreeMap<_, _>>(),
        };
        if let Err(error) = self.connections.save(&connection).await {
            tracing::error!(connection = %connection.id, error = %Causes(&error), "the connection was not saved");
            return internal_error();
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

/// The token: from the query, else the `Authorization` header, else among the offered subprotocols.
fn credentials(event: &ApiGatewayWebsocketProxyRequest) -> Credentials<'_> {
    let offered: Vec<&str> = text(&event.headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let looks_like_a_token = |name: &&&str| name.bytes().filter(|byte| *byte == b'.').count() == 2;
    let in_query = || {
        let query = &event.query_string_parameters;
        query.first("Authorization").or_else(|| query.first("token"))
    };
    let in_header = || text(&event.headers, &header::AUTHORIZATION);
    let in_subprotocols = || offered.iter().find(looks_like_a_token).copied();
    let token = in_query().or_else(in_header).or_else(in_subprotocols).map(without_scheme);
    let named = offered.iter().find(|name| !looks_like_a_token(name));
    Credentials { token, subprotocol: named.or(offered.first()).copied() }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn without_scheme(value: &str) -> &str {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => value,
    }
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
