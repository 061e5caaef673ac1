//! The functions as Lambda runs them, on a DynamoDB that gives the same answers each time.

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
use streamer::app::App;
use streamer::executor::{ExecutorSettings, Executor};
use streamer::auth::{Algorithm, TokenVerifier};
use streamer::ServiceError;
use streamer::connections::ApiGatewayConnections;
use streamer::dead_letters::{DeadLetter, DeadLetters};
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

/// The functions, and the runtime that they run on.
pub struct Functions {
    pub connect: Connect<DynamoConnectionStore>,
    pub disconnect: Disconnect<DynamoConnectionStore, DynamoRequestQueue>,
    pub router: Router<DynamoConnectionStore, DynamoRequestQueue, ApiGatewayConnections>,
    pub processor: Processor<DynamoRequestQueue, ApiGatewayConnections, Anywhere, Anywhere>,
    pub runtime: Runtime,
}

/// The moment at which everything happens.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// Whoever reads the metrics, which are JSON whatever the event said.
#[derive(Debug)]
struct Read;

impl MetricSink for Read {
    fn write(&self, line: &MetricLine) {
        serde_json::from_str::<Value>(&line.to_json()).unwrap();
    }
}

/// Takes every dead letter, and every request that is handed over.
#[derive(Debug)]
pub struct Anywhere;

impl DeadLetters for Anywhere {
    async fn send(&self, _: &DeadLetter) -> Result<(), ServiceError> {
        Ok(())
    }
}

impl WorkerDispatch for Anywhere {
    async fn dispatch(&self, _: &RequestKey) -> Result<(), ServiceError> {
        Ok(())
    }
}

async fn echo(input: Value) -> Result<Value, HandlerError> {
    Ok(input)
}

/// A handler whose requests are queued.
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
        // Time is virtual: what waits costs none.
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut app = App::new();
        app.handle("echo", echo).unwrap().handle("slow", Slow).unwrap();
        let app = Arc::new(app);
        let secret = "0123456789abcdef0123456789abcdef";
        let verifier = TokenVerifier::new(Algorithm::Hs256, secret).unwrap();
        let connections = DynamoConnectionStore::new(dynamodb(), CONNECTIONS);
        let queue = DynamoRequestQueue::new(dynamodb(), "requests", QueueSettings::default());
        let functions = Self {
            connect: Connect::new(verifier, connections.clone(), Arc::new(Stopped)),
            disconnect: Disconnect::new(
                connections.clone(),
                queue.clone(),
                Arc::new(Stopped),
                Arc::new(Read),
            ),
            router: Router::new(
                Arc::clone(&app),
                connections,
                queue.clone(),
                ApiGatewayConnections::new(management_api()),
                Arc::new(Stopped),
                runtime.handle().clone(),
            ),
            processor: Processor::new(
                Executor {
                    app,
                    queue,
                    connections: ApiGatewayConnections::new(management_api()),
                    dead_letters: Anywhere,
                    clock: Arc::new(Stopped),
                    entropy: Arc::new(SystemEntropy::new()),
                    handler_runtime: HandlerRuntime::on(runtime.handle().clone()),
                    settings: ExecutorSettings::default(),
                },
                Anywhere,
                ProcessorSettings::default(),
            ),
            runtime,
        };
        functions.check();
        functions
    }

    /// Without an item that is a connection's, no message would get past the router's door.
    fn check(&self) {
        let event = include_str!("../seeds/gateway_event/message_quick.json");
        let answer = self.runtime.block_on(self.router.route(&serde_json::from_str(event).unwrap()));
        assert!(answer.contains("\"success\":true"), "{answer}");
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
        .http_client(SharedHttpClient::new(Canned))
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
        .http_client(SharedHttpClient::new(Canned))
        .build();
    aws_sdk_apigatewaymanagement::Client::from_conf(config)
}

fn credentials() -> Credentials {
    Credentials::new("fuzz", "fuzz", None, None, "fuzz")
}

/// Knows every connection, takes every new request, and lets nobody change one.
#[derive(Clone, Debug)]
struct Canned;

impl Canned {
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

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = Self::answer(&request);
        let status = StatusCode::try_from(status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
