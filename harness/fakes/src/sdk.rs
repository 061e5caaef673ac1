//! HTTP clients for AWS SDKs that call the router of a fake directly, without a socket.

use std::future::{self, pending};
use std::io;

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
use axum::http::Response;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use tower::ServiceExt as _;

use crate::caller::Caller;

/// Returns an HTTP client that sends its requests to `router`. The client ignores timeout settings, because
/// connecting takes no time.
///
/// Each request carries [`InProcess`] as an extension, and `caller` as another extension if `caller` is `Some`.
/// While the caller is frozen, its calls wait. Once the caller is killed, a new call neither takes effect nor
/// returns.
pub(crate) fn client(router: Router, caller: Option<Caller>) -> SharedHttpClient {
    SharedHttpClient::new(Connector { router, caller })
}

/// Request extension that marks a request sent in process, without a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

/// Returns a response that never reaches the caller, because reading the response's body fails before the first
/// byte.
///
/// Over HTTP, the server closes the connection before it writes any of the response. In process, the caller waits
/// forever.
pub(crate) fn lost_answer() -> Response<Body> {
    let lost = io::Error::new(io::ErrorKind::ConnectionAborted, "answer dropped by an injected fault");
    Body::from_stream(stream::once(future::ready(Err::<Bytes, _>(lost)))).into_response()
}

#[derive(Clone, Debug)]
struct Connector {
    router: Router,
    caller: Option<Caller>,
}

impl Connector {
    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let Self { router, caller } = self;
        if let Some(caller) = &caller {
            caller.running().await;
        }
        let mut request =
            request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?.map(|body| {
                // `bytes` returns `None` only for a streamed body. The requests of the fakes' clients have their
                // bodies in memory.
                Body::from(body.bytes().map(Bytes::copy_from_slice).unwrap_or_default())
            });
        request.extensions_mut().insert(InProcess);
        if let Some(caller) = caller.clone() {
            request.extensions_mut().insert(caller);
        }
        let Ok(answer) = router.oneshot(request).await;
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await;
        if let Some(caller) = &caller {
            // The call has taken effect. A caller that was killed during the call gets no answer.
            caller.running().await;
        }
        // Reading a body fails only for `lost_answer`.
        let Ok(body) = body else { return pending().await };
        HttpResponse::try_from(Response::from_parts(head, SdkBody::from(body)))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Returns a router that counts its calls and takes a second to answer each call.
    fn counting_router(calls: Arc<AtomicU32>) -> Router {
        Router::new().fallback(move || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn call_of_a_frozen_caller_waits_for_the_thaw_and_a_killed_caller_makes_no_call() {
        let (count, caller) = (Arc::<AtomicU32>::default(), Caller::new("f"));
        let connector =
            Connector { router: counting_router(Arc::clone(&count)), caller: Some(caller.clone()) };
        let calls = || count.load(Ordering::Relaxed);
        let call = || timeout(LONG, connector.call(HttpRequest::empty()));
        assert!(call().await.is_ok());
        assert_eq!(calls(), 1);

        caller.freeze();
        assert!(call().await.is_err());
        assert_eq!(calls(), 1);
        let (called, ()) = tokio::join!(call(), async {
            sleep(LONG / 2).await;
            caller.thaw();
        });
        assert!(called.is_ok());
        assert_eq!(calls(), 2);

        // The caller is killed during the call: the call takes effect, and only the answer is dropped.
        let (called, ()) = tokio::join!(call(), async {
            sleep(Duration::from_millis(500)).await;
            caller.kill();
        });
        assert!(called.is_err());
        assert_eq!(calls(), 3);
        caller.thaw();
        assert!(call().await.is_err(), "a thaw does not revive a killed caller");
        assert_eq!(calls(), 3);
    }
}
