//! The Lambda functions for the fuzz targets, with stubs of DynamoDB and the management API that return fixed
//! responses.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, IdentityCache, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;
use streamer::ServiceError;
use streamer::app::App;
use streamer::auth::{Algorithm, TokenVerifier};
use streamer::connections::ApiGatewayConnections;
use streamer::dead_letters::{DeadLetter, DeadLetters};
use streamer::executor::{Executor, ExecutorSettings};
use streamer::functions::{Connect, Disconnect};
use streamer::handler::{Context, Handler, HandlerError, HandlerRuntime};
use streamer::ids::RequestKey;
use streamer::ports::{Clock, SystemEntropy, Timestamp};
use streamer::processor::{Processor, ProcessorSettings};
use streamer::router::Router;
use streamer::store::dynamodb::{DynamoConnectionStore, DynamoRequestQueue, QueueSettings};
use streamer::telemetry::{MetricLine, MetricSink};
use streamer::worker::dispatch::WorkerDispatch;
use tokio::runtime::{Builder, Runtime};

/// The Lambda functions that the targets fuzz, and the tokio runtime that runs these functions.
pub struct Functions {
    pub connect: Connect<DynamoConnectionStore>,
    pub disconnect: Disconnect<DynamoConnectionStore, DynamoRequestQueue>,
    pub router: Router<DynamoConnectionStore, DynamoRequestQueue, ApiGatewayConnections>,
    pub processor: Processor<DynamoRequestQueue, ApiGatewayConnections, DiscardAll, DiscardAll>,
    pub runtime: Runtime,
}

/// The constant time of the functions' clock: 2023-11-14T22:13:20Z.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A clock that always shows [`NOW`].
#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A metric sink that checks that each metric line is valid JSON.
#[derive(Debug)]
struct ValidatingSink;

impl MetricSink for ValidatingSink {
    fn write(&self, line: &MetricLine) {
        serde_json::from_str::<Value>(&line.to_json()).unwrap();
    }
}

/// Accepts and discards every dead letter and every dispatch to the worker.
#[derive(Debug)]
pub struct DiscardAll;

impl DeadLetters for DiscardAll {
    async fn send(&self, _: &DeadLetter) -> Result<(), ServiceError> {
        Ok(())
    }
}

impl WorkerDispatch for DiscardAll {
    async fn dispatch(&self, _: &RequestKey) -> Result<(), ServiceError> {
        Ok(())
    }
}

async fn echo(input: Value) -> Result<Value, HandlerError> {
    Ok(input)
}

/// A handler with an estimated duration of 60 s, so that the router queues its requests.
struct Slow;

impl Handler for Slow {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(60)
    }

    async fn process(&self, input: Value, _: Context) -> Result<Value, HandlerError> {
        Ok(input)
    }
}

impl Functions {
    pub fn new() -> Self {
        // Tokio's time is paused, so that timers fire without real waiting.
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut app = App::new();
        app.handle("echo", echo).unwrap().handle("slow", Slow).unwrap();
        let app = Arc::new(app);
        let secret = "0123456789abcdef0123456789abcdef";
        let verifier = TokenVerifier::new(Algorithm::Hs256, secret).unwrap();
        let connections = DynamoConnectionStore::new(dynamodb(), CONNECTIONS);
        let queue = DynamoRequestQueue::new(dynamodb(), "requests", QueueSettings::default());
        let functions = Self {
            connect: Connect::new(verifier, connections.clone(), Arc::new(FixedClock)),
            disconnect: Disconnect::new(
                connections.clone(),
                queue.clone(),
                Arc::new(FixedClock),
                Arc::new(ValidatingSink),
            ),
            router: Router::new(
                Arc::clone(&app),
                connections,
                queue.clone(),
                ApiGatewayConnections::new(management_api()),
                Arc::new(FixedClock),
                runtime.handle().clone(),
            ),
            processor: Processor::new(
                Executor {
                    app,
                    queue,
                    connections: ApiGatewayConnections::new(management_api()),
                    dead_letters: DiscardAll,
                    clock: Arc::new(FixedClock),
                    entropy: Arc::new(SystemEntropy::new()),
                    handler_runtime: HandlerRuntime::on(runtime.handle().clone()),
                    settings: ExecutorSettings::default(),
                },
                DiscardAll,
                ProcessorSettings::default(),
            ),
            runtime,
        };
        functions.check();
        functions
    }

    /// Checks that the router accepts the connection that [`FixedResponses`] returns. Otherwise the router would
    /// reject every message early, and the fuzz target would never reach the later code.
    fn check(&self) {
        let event = include_str!("../seeds/gateway_event/message_quick.json");
        let answer = self.runtime.block_on(self.router.route(&serde_json::from_str(event).unwrap()));
        assert!(
            answer.contains("\"success\":true"),
            "router answers a message of the stubbed connection with success: {answer}"
        );
    }
}

impl Default for Functions {
    fn default() -> Self {
        Self::new()
    }
}

const CONNECTIONS: &str = "connections";

fn dynamodb() -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials())
        .endpoint_url("http://dynamodb.localhost")
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(FixedResponses))
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

fn management_api() -> aws_sdk_apigatewaymanagement::Client {
    let config = aws_sdk_apigatewaymanagement::Config::builder()
        .behavior_version(aws_sdk_apigatewaymanagement::config::BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials())
        .endpoint_url("http://gateway.localhost")
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(FixedResponses))
        .build();
    aws_sdk_apigatewaymanagement::Client::from_conf(config)
}

fn credentials() -> Credentials {
    Credentials::new("fuzz", "fuzz", None, None, "fuzz")
}

/// An HTTP client with fixed responses. According to them, every connection exists, every new request is stored, and
/// every update of a request fails its condition.
#[derive(Clone, Debug)]
struct FixedResponses;

impl FixedResponses {
    fn answer(request: &HttpRequest) -> (u16, &'static str) {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.split('.').next_back().unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let of_connections = body.windows(CONNECTIONS.len()).any(|part| part == CONNECTIONS.as_bytes());
        match operation {
            "GetItem" if of_connections => (200, CONNECTION),
            "UpdateItem" if !of_connections => (400, REFUSED),
            _ => (200, "{}"),
        }
    }
}

const CONNECTION: &str = r#"{"Item":{
    "connection_id":{"S":"c1"},"user_id":{"S":"ann"},"tenant_id":{"S":"acme"},"user_key":{"S":"acme/ann"},
    "permissions":{"L":[]},"token_expires_at":{"N":"1700003600000"},"endpoint":{"S":"https://api.example/prod"},
    "connected_at":{"N":"1700000000000"},"last_ping":{"N":"1700000000000"},"metadata":{"M":{}},
    "ttl":{"N":"1700086400"}}}"#;

const REFUSED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
    "message":"The conditional request failed"}"#;

impl HttpConnector for FixedResponses {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = Self::answer(&request);
        let status = StatusCode::try_from(status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl HttpClient for FixedResponses {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
