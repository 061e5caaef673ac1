//! The three events that a WebSocket API sends to its functions, key for key as recorded.

use bytes::Bytes;
use serde::Serialize;
use streamer::ports::Timestamp;

use super::config::{ApiConfig, CONNECT, DISCONNECT};
use super::handshake::{Headers, Parameters};
use super::ids::{ConnectionId, RequestId};
use crate::aws_forms::clf;

/// Who is at the other end of a connection, as every event of it tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<String>,
    pub(super) source_ip: String,
}

/// What all events of one connection have in common.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) connection_id: ConnectionId,
    pub(super) connected_at: Timestamp,
    pub(super) identity: Identity,
}

/// When something happened, and under which request id.
#[derive(Clone, Debug)]
pub(super) struct Occasion {
    pub(super) request_id: RequestId,
    pub(super) at: Timestamp,
}

/// The code and the words with which a connection ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ending {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Ending {
    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// The event of a connection that asks to be opened.
pub(super) fn connect(
    config: &ApiConfig,
    subject: &Subject,
    occasion: &Occasion,
    headers: &Headers,
    query: Option<&Parameters>,
) -> Bytes {
    to_bytes(&Event {
        headers: Some(headers),
        query,
        body: None,
        request_context: RequestContext::new(config, subject, occasion, CONNECT, "CONNECT"),
        is_base64_encoded: false,
    })
}

/// The event of a message from a client. It has no headers.
pub(super) fn message(
    config: &ApiConfig,
    subject: &Subject,
    occasion: &Occasion,
    message_id: &RequestId,
    route_key: &str,
    body: &str,
) -> Bytes {
    let context = RequestContext::new(config, subject, occasion, route_key, "MESSAGE");
    to_bytes(&Event {
        headers: None,
        query: None,
        body: Some(body),
        request_context: RequestContext { message_id: Some(message_id), ..context },
        is_base64_encoded: false,
    })
}

/// The event of a connection that has ended.
pub(super) fn disconnect(
    config: &ApiConfig,
    subject: &Subject,
    occasion: &Occasion,
    ending: &Ending,
) -> Bytes {
    let headers = Headers::from_iter([
        ("Host", config.domain_name.as_str()),
        ("x-api-key", ""),
        ("X-Forwarded-For", ""),
        ("x-restapi", ""),
    ]);
    let context = RequestContext::new(config, subject, occasion, DISCONNECT, "DISCONNECT");
    to_bytes(&Event {
        headers: Some(&headers),
        query: None,
        body: None,
        request_context: RequestContext {
            disconnect_status_code: Some(ending.code),
            disconnect_reason: Some(&ending.reason),
            ..context
        },
        is_base64_encoded: false,
    })
}

fn to_bytes(event: &Event<'_>) -> Bytes {
    serde_json::to_vec(event).expect("an event has string keys and no value that JSON lacks").into()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    headers: Option<&'a Headers>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    query: Option<&'a Parameters>,
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
        subject: &'a Subject,
        occasion: &'a Occasion,
        route_key: &'a str,
        event_type: &'static str,
    ) -> Self {
        Self {
            route_key,
            disconnect_status_code: None,
            message_id: None,
            event_type,
            extended_request_id: &occasion.request_id,
            request_time: clf(occasion.at),
            message_direction: "IN",
            disconnect_reason: None,
            stage: &config.stage,
            connected_at: subject.connected_at,
            request_time_epoch: occasion.at,
            identity: &subject.identity,
            request_id: &occasion.request_id,
            domain_name: &config.domain_name,
            connection_id: &subject.connection_id,
            api_id: &config.api_id,
        }
    }
}
