//! The gateway without sockets: WebSockets over pipes in memory, and the AWS SDK's clients of the management API.

use std::convert::Infallible;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use tokio::io::{DuplexStream, duplex};
use tower::ServiceExt;

use super::{Gateway, upgrade};
use crate::faults::Caller;

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
            return Err(whole(upgrade::forbidden()).await);
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        let (parts, ()) = request.into_parts();
        let upgraded = async { Ok::<_, Infallible>(theirs) };
        let answer = upgrade::handshake(self.api.clone(), parts, upgraded).await;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (head, _) = answer.into_parts();
            Ok(Opened { headers: head.headers, stream: ours })
        } else {
            Err(whole(answer).await)
        }
    }

    /// An HTTP client for the AWS SDK's clients of the management API (`@connections`), whose answers come from this
    /// gateway. Their endpoint is any host with the stage as its path, such as `http://gateway.localhost/prod`.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(InProcess { router: self.router(), caller: None })
    }

    /// As [`http_client`](Self::http_client), for the calls of `caller`: faults can be about these alone, and can kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        SharedHttpClient::new(InProcess { router: self.router(), caller: Some(caller) })
    }
}

/// An answer with its body read, which is in memory already.
async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    Response::from_parts(head, to_bytes(body, usize::MAX).await.unwrap_or_default())
}

#[derive(Clone, Debug)]
struct InProcess {
    router: Router,
    caller: Option<Caller>,
}

impl InProcess {
    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut request =
            request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?.map(|body| {
                // The management API's requests have their bodies in memory.
                Body::from(body.bytes().map(Bytes::copy_from_slice).unwrap_or_default())
            });
        if let Some(caller) = self.caller {
            request.extensions_mut().insert(caller);
        }
        let Ok(answer) = self.router.oneshot(request).await;
        let answer = whole(answer).await.map(SdkBody::from);
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}

impl HttpClient for InProcess {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
