//! The functions' `main`s: each reads its environment, makes its clients once, and answers events.
//!
//! What each reads beside `LOG_LEVEL`, [`STREAMER_RECORD`](Environment::is_recording) and what Lambda itself sets:
//!
//! | function | must be set | may be set |
//! |---|---|---|
//! | [`connect`] | `CONNECTIONS_TABLE`, and [what tokens are verified with](Environment::token_key) | `ALLOWED_TENANTS`, `JWT_ISSUER`, `JWT_AUDIENCE` |
//! | [`disconnect`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE` | [`CANCEL_ON_DISCONNECT`](Environment::cancel_on_disconnect), [`REQUEST_TTL_S`](Environment::queue_settings) |
//! | [`router`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE` | [`ASYNC_THRESHOLD_MS`](Environment::async_threshold), [`REQUEST_TTL_S`](Environment::queue_settings), `RATE_LIMITS_TABLE`: where [shared rate limits](crate::middleware::RateLimit::shared) count |
//! | [`processor`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | [`CONCURRENCY`, `LEASE_MS`](Environment::processor_settings), [`REQUEST_TTL_S`](Environment::queue_settings) |
//!
//! A function whose environment is wrong does not start, and says all that is wrong with it.
//!
//! ```no_run
//! use streamer::app::App;
//!
//! fn main() -> Result<(), streamer::lambda::Error> {
//!     let app = App::new();
//!     streamer::lambda::router(app)
//! }
//! ```

use std::future::Future;
use std::sync::Arc;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::LambdaEvent;
use tokio::runtime::Builder;

use crate::app::App;
use crate::aws::AwsEnvironment;
use crate::config::Environment;
use crate::connections::ApiGatewayConnections;
use crate::functions::{Connect, Disconnect, route_response};
use crate::handler::handlers_runtime;
use crate::ports::{Clock as _, SystemClock, SystemEntropy, Timestamp};
use crate::processor::{Processor, StreamBatch};
use crate::router::Router;
use crate::store::dynamodb::{DynamoConnectionStore, DynamoRateLimits, DynamoRequestQueue};
use crate::telemetry::{self, StandardOutput, record::run};

/// Why a function could not start, or could not go on.
pub type Error = lambda_runtime::Error;

type WebSocketEvent = LambdaEvent<ApiGatewayWebsocketProxyRequest>;

/// The `connect` function: lets in whoever has a valid token.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn connect() -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let aws = AwsEnvironment::read(&mut environment);
    let key = environment.token_key();
    let table = environment.required("CONNECTIONS_TABLE");
    environment.finish()?;
    let key = key.ok_or("the environment has no token key")?;
    on_one_thread(async {
        let verifier = key.verifier(&aws, SystemClock.now()).await?;
        let store = DynamoConnectionStore::new(aws.dynamodb(), table);
        let connect = Connect::new(verifier, store, Arc::new(SystemClock));
        let connect = &connect;
        run(recording, move |event: WebSocketEvent| async move {
            Ok::<_, Error>(connect.handle(&event.payload, deadline(&event.context)).await)
        })
        .await
    })
}

/// The `disconnect` function: forgets connections, and takes them off their requests.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn disconnect() -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let aws = AwsEnvironment::read(&mut environment);
    let connections = environment.required("CONNECTIONS_TABLE");
    let requests = environment.required("REQUESTS_TABLE");
    let (is_cancelling, settings) = (environment.cancel_on_disconnect(), environment.queue_settings());
    environment.finish()?;
    on_one_thread(async {
        let client = aws.dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), connections);
        let queue = DynamoRequestQueue::new(client, requests, settings);
        let (clock, metrics) = (Arc::new(SystemClock), Arc::new(StandardOutput));
        let disconnect = Disconnect::new(connections, queue, clock, metrics).cancelling(is_cancelling);
        let disconnect = &disconnect;
        run(recording, move |event: WebSocketEvent| async move {
            Ok::<_, Error>(disconnect.handle(&event.payload, deadline(&event.context)).await)
        })
        .await
    })
}

/// The `router` function: answers messages, or queues what they ask for.
///
/// Quick handlers run on a thread of their own, so that one that burns CPU is timed out like any other; those that come
/// after it get another thread.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn router(app: App) -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let aws = AwsEnvironment::read(&mut environment);
    let connections = environment.required("CONNECTIONS_TABLE");
    let requests = environment.required("REQUESTS_TABLE");
    let rate_limits = environment.optional("RATE_LIMITS_TABLE");
    let (threshold, settings) = (environment.async_threshold(), environment.queue_settings());
    environment.finish()?;
    let handlers = handlers_runtime(1)?;
    let handle = handlers.handle().clone();
    on_one_thread(async {
        let client = aws.dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), connections);
        let queue = DynamoRequestQueue::new(client.clone(), requests, settings);
        let mut router = Router::new(Arc::new(app), connections, queue, Arc::new(SystemClock), handle);
        router.set_async_threshold(threshold);
        if let Some(table) = rate_limits {
            router.set_rate_limits(DynamoRateLimits::new(client, table));
        }
        let router = &router;
        run(recording, move |event: WebSocketEvent| async move {
            Ok::<_, Error>(route_response(
                router.route_before(&event.payload, deadline(&event.context)).await,
            ))
        })
        .await
    })
}

/// The `processor` function: runs queued requests.
///
/// Handlers run on threads of their own, so that one that burns CPU keeps neither the leases of its
/// batch from being renewed nor its frames from being pushed.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn processor(app: App) -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let aws = AwsEnvironment::read(&mut environment);
    let requests = environment.required("REQUESTS_TABLE");
    environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
    let (settings, queue_settings) = (environment.processor_settings(), environment.queue_settings());
    environment.finish()?;
    let handlers = handlers_runtime(settings.concurrency)?;
    let handle = handlers.handle().clone();
    on_one_thread(async {
        let processor = Processor::new(
            Arc::new(app),
            DynamoRequestQueue::new(aws.dynamodb(), requests, queue_settings),
            ApiGatewayConnections::new(aws.management_api()),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::new()),
            handle,
            settings,
        );
        let processor = &processor;
        run(recording, move |event: LambdaEvent<StreamBatch>| async move {
            let deadline = deadline(&event.context);
            Ok::<_, Error>(processor.process(event.payload, deadline).await)
        })
        .await
    })
}

fn deadline(context: &lambda_runtime::Context) -> Timestamp {
    Timestamp::from_millis(context.deadline)
}

fn on_one_thread(main: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    Builder::new_current_thread().enable_all().build()?.block_on(main)
}
