//! AWS's SDKs in process: HTTP clients whose answers come from a router, without a socket.

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

/// An HTTP client whose requests `router` answers, whatever timeouts are asked for: connecting takes no time.
///
/// The router finds [`InProcess`] among a request's extensions, and `caller` if there is one. While a caller is frozen its
/// calls wait; once it is dead, no call has an effect or an answer.
pub(crate) fn client(router: Router, caller: Option<Caller>) -> SharedHttpClient {
    SharedHttpClient::new(Connector { router, caller })
}

/// Marks a request that came without a socket, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

/// The answer to a call whose caller is to get none. Its body fails before the first byte: over HTTP the connection is closed
/// before anything of the answer is written, and in process the caller waits for ever.
pub(crate) fn lost_answer() -> Response<Body> {
    let lost = io::Error::new(io::ErrorKind::ConnectionAborted, "the answer is lost, as a fault has it");
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
                // The requests that come this way have their bodies in memory.
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
            // What has been sent takes effect without its sender; it alone does not learn of it.
            caller.running().await;
        }
        // Only the body of a lost answer cannot be read.
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

    /// Counts its calls, each of which takes a second.
    fn counted(calls: Arc<AtomicU32>) -> Router {
        Router::new().fallback(move || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_still_calls_once_it_goes_on_and_who_is_dead_does_not_at_all() {
        let (count, caller) = (Arc::<AtomicU32>::default(), Caller::new("f"));
        let connector = Connector { router: counted(Arc::clone(&count)), caller: Some(caller.clone()) };
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

        // Under way already: only the answer is not heard.
        let (called, ()) = tokio::join!(call(), async {
            sleep(Duration::from_millis(500)).await;
            caller.kill();
        });
        assert!(called.is_err());
        assert_eq!(calls(), 3);
        caller.thaw();
        assert!(call().await.is_err(), "the dead do not come back");
        assert_eq!(calls(), 3);
    }
}
