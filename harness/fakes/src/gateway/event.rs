//! Events that a WebSocket API sends to its functions, with exactly the keys of events recorded on AWS.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use streamer::ports::Timestamp;

use super::authorizer::Context;
use super::config::{ApiConfig, CONNECT, DISCONNECT};
use super::headers::Headers;
use super::identity::Identity;
use super::ids::{ConnectionId, RequestId};
use super::query::QueryParameters;
use crate::aws_format::{clf, partition};

/// Data that all events of one connection contain.
#[derive(Clone, Debug)]
pub(super) struct ConnectionInfo {
    pub(super) connection_id: ConnectionId,
    pub(super) connected_at: Timestamp,
    pub(super) identity: Identity,
    /// Custom domain name that the client connected to; `None` if the client used no custom domain name.
    pub(super) custom_domain: Option<String>,
    /// Context that the authorizer returned for the client; `None` if `$connect` has no authorizer.
    pub(super) authorizer: Option<Context>,
}

impl ConnectionInfo {
    fn domain_name<'a>(&'a self, config: &'a ApiConfig) -> &'a str {
        self.custom_domain.as_deref().unwrap_or(&config.domain_name)
    }
}

/// Id and arrival time of one request at the gateway: a handshake, a message or a disconnect.
#[derive(Clone, Debug)]
pub(super) struct RequestStamp {
    pub(super) request_id: RequestId,
    pub(super) at: Timestamp,
}

/// Close code and reason of a closed connection, as the `$disconnect` event reports them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DisconnectStatus {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl DisconnectStatus {
    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Builds the `$connect` event of a handshake.
///
/// `authorizer` is the authorizer's context plus the key `integrationLatency`, which only the `$connect`
/// event has.
pub(super) fn connect(
    config: &ApiConfig,
    info: &ConnectionInfo,
    stamp: &RequestStamp,
    headers: &Headers,
    query: Option<&QueryParameters>,
    authorizer: Option<&Context>,
) -> Bytes {
    let context = RequestContext::new(config, info, stamp, CONNECT, "CONNECT");
    to_bytes(&Event {
        headers: Some(headers),
        query,
        body: None,
        request_context: RequestContext { authorizer, ..context },
        is_base64_encoded: false,
    })
}

/// Builds the event that the authorizer function receives for a handshake.
pub(super) fn authorize(
    config: &ApiConfig,
    info: &ConnectionInfo,
    stamp: &RequestStamp,
    headers: &Headers,
    query: Option<&QueryParameters>,
    arn: &str,
) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Event<'a> {
        r#type: &'static str,
        method_arn: &'a str,
        #[serde(flatten)]
        headers: &'a Headers,
        #[serde(flatten)]
        query: &'a QueryParameters,
        stage_variables: BTreeMap<String, String>,
        request_context: RequestContext<'a>,
    }
    let request_context = RequestContext::new(config, info, stamp, CONNECT, "CONNECT");
    to_bytes(&Event {
        r#type: "REQUEST",
        method_arn: arn,
        headers,
        query: query.unwrap_or(&QueryParameters::default()),
        stage_variables: BTreeMap::new(),
        request_context,
    })
}

/// Returns the ARN of the `$connect` route, which the authorizer's policy must allow the client to invoke.
pub(super) fn method_arn(config: &ApiConfig) -> String {
    let ApiConfig { region, account_id, api_id, stage, .. } = config;
    let partition = partition(region);
    format!("arn:{partition}:execute-api:{region}:{account_id}:{api_id}/{stage}/{CONNECT}")
}

/// Builds the event for a client's message. Message events have no headers.
pub(super) fn message(
    config: &ApiConfig,
    info: &ConnectionInfo,
    stamp: &RequestStamp,
    message_id: &RequestId,
    route_key: &str,
    body: &str,
) -> Bytes {
    let context = RequestContext::new(config, info, stamp, route_key, "MESSAGE");
    to_bytes(&Event {
        headers: None,
        query: None,
        body: Some(body),
        request_context: RequestContext { message_id: Some(message_id), ..context },
        is_base64_encoded: false,
    })
}

/// Builds the `$disconnect` event of a closed connection.
pub(super) fn disconnect(
    config: &ApiConfig,
    info: &ConnectionInfo,
    stamp: &RequestStamp,
    status: &DisconnectStatus,
) -> Bytes {
    let headers = Headers::from_iter([
        ("Host", info.domain_name(config)),
        ("x-api-key", ""),
        ("X-Forwarded-For", ""),
        ("x-restapi", ""),
    ]);
    let context = RequestContext::new(config, info, stamp, DISCONNECT, "DISCONNECT");
    to_bytes(&Event {
        headers: Some(&headers),
        query: None,
        body: None,
        request_context: RequestContext {
            disconnect_status_code: Some(status.code),
            disconnect_reason: Some(&status.reason),
            ..context
        },
        is_base64_encoded: false,
    })
}

fn to_bytes(event: &impl Serialize) -> Bytes {
    serde_json::to_vec(event).expect("events have string keys and only values that JSON can represent").into()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    headers: Option<&'a Headers>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    query: Option<&'a QueryParameters>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a RequestId>,
    event_type: &'static str,
    extended_request_id: &'a RequestId,
    request_time: String,
    message_direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'a Context>,
    stage: &'a str,
    connected_at: Timestamp,
    request_time_epoch: Timestamp,
    identity: &'a Identity,
    request_id: &'a RequestId,
    domain_name: &'a str,
    connection_id: &'a ConnectionId,
    api_id: &'a str,
}

impl<'a> RequestContext<'a> {
    fn new(
        config: &'a ApiConfig,
        info: &'a ConnectionInfo,
        stamp: &'a RequestStamp,
        route_key: &'a str,
        event_type: &'static str,
    ) -> Self {
        Self {
            route_key,
            disconnect_status_code: None,
            message_id: None,
            event_type,
            extended_request_id: &stamp.request_id,
            request_time: clf(stamp.at),
            message_direction: "IN",
            disconnect_reason: None,
            authorizer: info.authorizer.as_ref(),
            stage: &config.stage,
            connected_at: info.connected_at,
            request_time_epoch: stamp.at,
            identity: &info.identity,
            request_id: &stamp.request_id,
            domain_name: info.domain_name(config),
            connection_id: &info.connection_id,
            api_id: &config.api_id,
        }
    }
}
