//! The AWS SDK in process: a connector that answers without a socket.

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::DynamoDb;
use crate::faults::Caller;

/// The content type of DynamoDB's protocol.
pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

impl DynamoDb {
    /// An HTTP client for any AWS SDK client of DynamoDB or its streams, whose answers come from this database.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(InProcess { db: self.clone(), caller: None })
    }

    /// As [`http_client`](Self::http_client), for a function that runs in this process: faults may be about its calls
    /// alone, and may kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        SharedHttpClient::new(InProcess { db: self.clone(), caller: Some(caller) })
    }

    /// An SDK client on this database. It neither retries nor times out, so that a test sees each failure, never
    /// sleeps, and needs no timer.
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client())
    }

    /// As [`client`](Self::client), for a function that runs in this process.
    #[must_use]
    pub fn client_of(&self, caller: Caller) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client_of(caller))
    }

    fn client_with(&self, http_client: SharedHttpClient) -> aws_sdk_dynamodb::Client {
        let region = self.lock().settings().region.clone();
        let config = aws_sdk_dynamodb::Config::builder()
            .region(Region::new(region))
            .credentials_provider(Credentials::new("test", "test", None, None, "streamer-harness"))
            .endpoint_url("http://dynamodb.localhost")
            .http_client(http_client)
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }
}

#[derive(Clone, Debug)]
struct InProcess {
    db: DynamoDb,
    caller: Option<Caller>,
}

impl InProcess {
    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request
            .body()
            .bytes()
            .ok_or_else(|| ConnectorError::user("a DynamoDB request has a body in memory".into()))?;
        let answer = self.db.handle(target, body);
        let status =
            StatusCode::try_from(answer.status).map_err(|error| ConnectorError::user(error.into()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        response.headers_mut().insert("content-type", CONTENT_TYPE);
        response.headers_mut().insert("x-amzn-requestid", self.db.request_id());
        Ok(response)
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(self.answer(&request))
    }
}

impl HttpClient for InProcess {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
