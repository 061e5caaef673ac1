//! The AWS SDK in process: a connector that answers without a socket.

use std::future::pending;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::Queues;
use crate::aws_format::uuid;
use crate::faults::Caller;
use crate::sdk;

/// The content type of SQS's protocol.
pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// What queue URLs begin with in process.
const ORIGIN: &str = "http://sqs.localhost";

impl Queues {
    /// An HTTP client for any AWS SDK client of SQS, whose answers come from these queues.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(InProcess { queues: self.clone(), caller: None })
    }

    /// As [`http_client`](Self::http_client), for a function that runs in this process: faults may be about its calls
    /// alone, and may kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        sdk::client_of(InProcess { queues: self.clone(), caller: Some(caller.clone()) }, caller)
    }
}

#[derive(Clone, Debug)]
struct InProcess {
    queues: Queues,
    caller: Option<Caller>,
}

impl InProcess {
    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request
            .body()
            .bytes()
            .ok_or_else(|| ConnectorError::user("a request of SQS has a body in memory".into()))?;
        let Some(answer) = self.queues.call(target, body, ORIGIN, self.caller.as_ref()).await else {
            return pending().await;
        };
        let status =
            StatusCode::try_from(answer.status).map_err(|error| ConnectorError::user(error.into()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        response.headers_mut().insert("content-type", CONTENT_TYPE);
        response.headers_mut().insert("x-amzn-requestid", uuid(&*self.queues.inner.entropy));
        if let Some(error) = answer.query_error {
            response.headers_mut().insert("x-amzn-query-error", error);
        }
        Ok(response)
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}
