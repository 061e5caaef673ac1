//! AWS's SDKs in process: HTTP clients whose answers come without a socket.

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
use bytes::Bytes;
use tower::ServiceExt as _;

use crate::caller::Caller;

/// An HTTP client whose requests `connector` answers, whatever timeouts are asked for: connecting takes no time.
pub(crate) fn client(connector: impl HttpConnector + Clone + 'static) -> SharedHttpClient {
    SharedHttpClient::new(InProcess(connector))
}

/// As [`client`], for the calls of `caller`: while it stands still they wait, and once it is dead none has an effect, nor an answer.
pub(crate) fn client_of(connector: impl HttpConnector + Clone + 'static, caller: Caller) -> SharedHttpClient {
    client(Calling { connector, caller })
}

/// An HTTP client whose requests `router` answers; it finds who calls among a request's extensions.
pub(crate) fn client_of_router(router: Router, caller: Option<Caller>) -> SharedHttpClient {
    match caller {
        Some(caller) => client_of(Routed { router, caller: Some(caller.clone()) }, caller),
        None => client(Routed { router, caller: None }),
    }
}

/// The connector of a process that may stand still, or die.
#[derive(Clone, Debug)]
struct Calling<C> {
    connector: C,
    caller: Caller,
}

impl<C: HttpConnector + Clone + 'static> HttpConnector for Calling<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { connector, caller } = self.clone();
        HttpConnectorFuture::new(async move {
            caller.running().await;
            let answer = connector.call(request).await;
            // What has been sent takes effect without its sender; it alone does not learn of it.
            caller.running().await;
            answer
        })
    }
}

#[derive(Debug)]
struct InProcess<C>(C);

impl<C: HttpConnector + Clone + 'static> HttpClient for InProcess<C> {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.0.clone())
    }
}

#[derive(Clone, Debug)]
struct Routed {
    router: Router,
    caller: Option<Caller>,
}

impl Routed {
    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut request =
            request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?.map(|body| {
                // The requests that come this way have their bodies in memory.
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

impl HttpConnector for Routed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}

/// An answer with its body read, which is in memory already.
pub(crate) async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    Response::from_parts(head, to_bytes(body, usize::MAX).await.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use aws_smithy_runtime_api::http::StatusCode;
    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Counts its calls, each of which takes a second.
    #[derive(Clone, Debug, Default)]
    struct Counted(Arc<AtomicU32>);

    impl HttpConnector for Counted {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            self.0.fetch_add(1, Ordering::Relaxed);
            HttpConnectorFuture::new(async {
                sleep(Duration::from_secs(1)).await;
                Ok(HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::empty()))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_still_calls_once_it_goes_on_and_who_is_dead_does_not_at_all() {
        let (counted, caller) = (Counted::default(), Caller::new("f"));
        let calling = Calling { connector: counted.clone(), caller: caller.clone() };
        let calls = || counted.0.load(Ordering::Relaxed);
        let call = || timeout(LONG, calling.call(HttpRequest::empty()));
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
