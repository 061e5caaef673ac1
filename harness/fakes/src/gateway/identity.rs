//! Identity of a client: IP address and user agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use serde::Serialize;

/// Identity of a client, sent as `requestContext.identity` in every event of the client's connection.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<String>,
    pub(super) source_ip: String,
}

impl Identity {
    /// Reads the client's identity from a handshake.
    ///
    /// If the handshake has no [`ConnectInfo`], as in a test without sockets, the source IP is 127.0.0.1.
    pub(super) fn of(parts: &Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let ip =
            peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ConnectInfo(address)| address.ip().to_canonical());
        let user_agent =
            parts.headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
        Self { user_agent, source_ip: ip.to_string() }
    }
}
