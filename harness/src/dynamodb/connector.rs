//! The AWS SDK in process: a connector that answers without a socket.

use std::future;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::{DynamoDb, Response, faults};
use crate::faults::{Caller, Effect, Effects};
use crate::sdk;

/// The content type of DynamoDB's protocol.
pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

impl DynamoDb {
    /// An HTTP client for any AWS SDK client of DynamoDB or its streams, whose answers come from this database.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(InProcess::new(self, None))
    }

    /// As [`http_client`](Self::http_client), for a function that runs in this process: faults may be about its calls
    /// alone, and may kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        sdk::client_of(InProcess::new(self, Some(caller.clone())), caller)
    }

    /// An SDK client on this database. It neither retries nor times out, so that a test sees each failure, never
    /// sleeps, and needs no timer.
    ///
    /// Faults strike it as they strike the stage's functions, unless they are narrowed to one of those by
    /// [`Call::by`](crate::faults::Call::by).
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client())
    }

    /// As [`client`](Self::client), for a function that runs in this process.
    #[must_use]
    pub fn client_of(&self, caller: Caller) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client_of(caller))
    }

    /// As [`client`](Self::client), for the harness itself: no fault strikes it, and no ledger has its calls. All answers
    /// are there at once.
    pub(crate) fn quiet_client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(sdk::client(InProcess { quiet: true, ..InProcess::new(self, None) }))
    }

    fn client_with(&self, http_client: SharedHttpClient) -> aws_sdk_dynamodb::Client {
        let region = self.settings.region.clone();
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
    /// Whether faults and ledgers do not see it.
    quiet: bool,
}

impl InProcess {
    fn new(db: &DynamoDb, caller: Option<Caller>) -> Self {
        Self { db: db.clone(), caller, quiet: false }
    }

    /// What stands in the request: all of it is in memory.
    fn parts(request: &HttpRequest) -> Result<(&str, &[u8]), ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes();
        let body =
            body.ok_or_else(|| ConnectorError::user("a DynamoDB request has a body in memory".into()))?;
        Ok((target, body))
    }

    fn respond(&self, answer: Response) -> Result<HttpResponse, ConnectorError> {
        let status =
            StatusCode::try_from(answer.status).map_err(|error| ConnectorError::user(error.into()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        response.headers_mut().insert("content-type", CONTENT_TYPE);
        response.headers_mut().insert("x-amzn-requestid", self.db.request_id());
        Ok(response)
    }

    /// Answers a call with which something goes wrong; a caller that is killed, or whose answer is lost, waits for ever.
    async fn call_with(self, effects: Effects, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        if let (Some(Effect::Kill), Some(caller)) = (effects.effect, &self.caller) {
            if !effects.delay.is_zero() {
                tokio::time::sleep(effects.delay).await;
            }
            caller.kill();
            return future::pending().await;
        }
        let (target, body) = Self::parts(&request)?;
        let caller = self.caller.as_ref();
        let answer = if effects.delay.is_zero() {
            faults::call_with(&self.db, caller, &effects, target, body)
        } else {
            let (db, target, body) = (self.db.clone(), target.to_owned(), body.to_vec());
            let caller = caller.cloned();
            // Whoever calls may stop waiting; the call takes effect all the same.
            let delayed = tokio::spawn(async move {
                tokio::time::sleep(effects.delay).await;
                faults::call_with(&db, caller.as_ref(), &effects, &target, &body)
            });
            delayed.await.map_err(|error| ConnectorError::other(error.into(), None))?
        };
        match answer {
            Some(answer) => self.respond(answer),
            None => future::pending().await,
        }
    }
}

impl HttpConnector for InProcess {
    /// Without a fault the answer is there at once, so that a paused clock stands still meanwhile.
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (target, body) = match Self::parts(&request) {
            Ok(parts) => parts,
            Err(error) => return HttpConnectorFuture::ready(Err(error)),
        };
        if self.quiet {
            let answer = self.db.lock().call(target, body);
            return HttpConnectorFuture::ready(self.respond(faults::respond(answer)));
        }
        let effects = faults::effects(&self.db, self.caller.as_ref(), target, body);
        if effects.are_none() {
            let answer = faults::call(&self.db, self.caller.as_ref(), target, body);
            return HttpConnectorFuture::ready(self.respond(answer));
        }
        HttpConnectorFuture::new(self.clone().call_with(effects, request))
    }
}
