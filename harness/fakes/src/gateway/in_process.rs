//! The gateway without network sockets: WebSockets over in-memory pipes, and HTTP clients for the management
//! API.

use std::convert::Infallible;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use tokio::io::{DuplexStream, duplex};

use super::server::Gateway;
use super::upgrade;
use crate::faults::Caller;
use crate::sdk;

/// A WebSocket that [`Gateway::connect`] has opened over an in-memory pipe.
#[derive(Debug)]
pub struct Opened {
    /// Headers of the 101 response, such as `Sec-WebSocket-Protocol`.
    pub headers: HeaderMap,
    /// Client's end of the in-memory pipe. The handshake is complete, so the stream carries only WebSocket
    /// frames.
    pub stream: DuplexStream,
}

/// Capacity of an in-memory pipe in each direction, in bytes. A write to a full pipe waits.
const PIPE_BYTES: usize = 16 * 1_024;

impl Gateway {
    /// Opens a WebSocket over an in-memory pipe, without a network socket.
    ///
    /// `request` is a complete handshake with a `Sec-WebSocket-Key`, as built by tungstenite's
    /// `IntoClientRequest`. The request's path is `/` and the name of the API's stage. Functions receive as
    /// `sourceIp` the address in the request's extension
    /// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo), or `127.0.0.1` without the extension.
    ///
    /// # Errors
    /// The HTTP response of the gateway, or of the `$connect` route, if the handshake is rejected.
    pub async fn connect(&self, request: Request<()>) -> Result<Opened, Response<Bytes>> {
        let path = request.uri().path();
        let stage = path.strip_suffix('/').unwrap_or(path).strip_prefix('/');
        if stage != Some(&self.api.config.stage) {
            return Err(refusal(upgrade::forbidden()).await);
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        let (parts, ()) = request.into_parts();
        let upgraded = async { Ok::<_, Infallible>(theirs) };
        let answer = upgrade::handshake(self.api.clone(), parts, upgraded).await;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (head, _) = answer.into_parts();
            Ok(Opened { headers: head.headers, stream: ours })
        } else {
            Err(refusal(answer).await)
        }
    }

    /// Returns an HTTP client for AWS SDK clients of the management API (`@connections`). This gateway
    /// answers the calls.
    ///
    /// The SDK client's endpoint URL may have any host and must have the stage's name as its path, such as
    /// `http://gateway.localhost/prod`.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// Returns an HTTP client like [`http_client`](Self::http_client) that makes every call with the identity
    /// `caller`.
    ///
    /// Fault rules can then match only the calls of `caller`, and can kill the environment of `caller`.
    #[must_use]
    pub fn http_client_for(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }
}

/// Collects the body of a response that rejects a handshake. The body is already in memory.
async fn refusal(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    Response::from_parts(head, to_bytes(body, usize::MAX).await.unwrap_or_default())
}
