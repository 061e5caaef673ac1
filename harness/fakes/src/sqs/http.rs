//! SQS over HTTP, for any AWS SDK and the AWS CLI. SDK clients in this process use the same router, without sockets.

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::call::TARGET;
use super::error::ApiError;
use super::queues::Queues;
use crate::aws_format::uuid;
use crate::faults::Caller;
use crate::sdk::{self, InProcess, lost_answer};

/// Content type of requests and answers in SQS's protocol.
const PROTOCOL: &str = "application/x-amz-json-1.0";

/// Scheme and host of queue URLs in answers to clients in this process.
const ORIGIN_IN_PROCESS: &str = "http://sqs.localhost";

/// Largest accepted request body, in bytes. The largest batch fits, even with all its characters escaped as JSON.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

impl Queues {
    /// Returns SQS's HTTP endpoint, without any other routes.
    pub fn router(&self) -> Router {
        self.layered_over(Router::new())
    }

    /// Returns a router that answers the calls of SQS, and leaves all other requests to `router`.
    ///
    /// Calls of SQS are accepted on any path, because some SDKs send them to `/`, and some to the queue's URL.
    pub fn layered_over(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), serve))
    }

    /// Returns an HTTP client for any AWS SDK client of SQS. These queues answer each call of the HTTP client.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// Returns an HTTP client like [`http_client`](Self::http_client) for the function `caller` in this process.
    ///
    /// Fault rules can match the calls of this function, and can kill the function's environment.
    #[must_use]
    pub fn http_client_for(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }
}

async fn serve(State(queues): State<Queues>, request: Request, next: Next) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let Some(target) =
        target.filter(|target| target.starts_with(TARGET) && *request.method() == Method::POST)
    else {
        return next.run(request).await;
    };
    let target = target.to_owned();
    let origin = if request.extensions().get::<InProcess>().is_some() {
        ORIGIN_IN_PROCESS.to_owned()
    } else {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        format!("http://{}", host.unwrap_or("localhost"))
    };
    let caller = request.extensions().get::<Caller>().cloned();
    let answer = match to_bytes(request.into_body(), MAX_BODY_BYTES).await {
        Ok(body) => match queues.call(&target, &body, &origin, caller.as_ref()).await {
            Some(answer) => answer,
            None => return lost_answer(),
        },
        Err(_) => {
            let message = format!("The request body is larger than {MAX_BODY_BYTES} bytes.");
            ApiError::parameter(message).into_response()
        }
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers =
        [("x-amzn-requestid", uuid(&*queues.inner.entropy)), (CONTENT_TYPE.as_str(), PROTOCOL.to_owned())];
    let mut response = (status, headers, answer.body).into_response();
    if let Some(error) = answer.query_error.and_then(|error| HeaderValue::from_str(&error).ok()) {
        response.headers_mut().insert("x-amzn-query-error", error);
    }
    response
}
