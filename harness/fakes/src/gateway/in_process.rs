//! The gateway without sockets: WebSockets over pipes in memory, and the AWS SDK's clients of the management API.

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

/// A WebSocket that was opened in process.
#[derive(Debug)]
pub struct Opened {
    /// The headers of the answer 101, the subprotocol among them.
    pub headers: HeaderMap,
    /// The client's end, which speaks the WebSocket protocol from its first byte on.
    pub stream: DuplexStream,
}

/// As much as may be under way in each direction of a pipe before its writer waits.
const PIPE_BYTES: usize = 16 * 1_024;

impl Gateway {
    /// Opens a WebSocket without a socket. `request` is a whole handshake, with its `Sec-WebSocket-Key`, such as
    /// tungstenite's `IntoClientRequest` makes; its path is that of the stage. `sourceIp` is that of a
    /// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo) among its extensions, otherwise `127.0.0.1`.
    ///
    /// # Errors
    /// With the answer of a gateway, or of its `$connect` route, that refuses.
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

    /// An HTTP client for the AWS SDK's clients of the management API (`@connections`), whose answers come from this
    /// gateway. Their endpoint is any host with the stage as its path, such as `http://gateway.localhost/prod`.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// As [`http_client`](Self::http_client), for the calls of `caller`: faults can be about these alone, and can kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }
}

/// An answer with its body, which is in memory already.
async fn refusal(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    Response::from_parts(head, to_bytes(body, usize::MAX).await.unwrap_or_default())
}
