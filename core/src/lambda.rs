//! The functions' `main`s: each reads its environment, makes its clients once, and answers events.
//!
//! What each reads beside `LOG_LEVEL`, [`STREAMER_RECORD`](Environment::is_recording) and what Lambda itself sets:
//!
//! | function | must be set | may be set |
//! |---|---|---|
//! | [`connect`] | `CONNECTIONS_TABLE`, and [what tokens are verified with](Environment::token_key) | `ALLOWED_TENANTS`, `JWT_ISSUER`, `JWT_AUDIENCE` |
//! | [`disconnect`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE` | [`CANCEL_ON_DISCONNECT`](Environment::cancel_on_disconnect), [`REQUEST_TTL_S`](Environment::queue_settings) |
//! | [`router`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | [`ASYNC_THRESHOLD_MS`](Environment::async_threshold), [`INLINE_LIMIT_MS`](Environment::inline_limit), [`REQUEST_TTL_S`](Environment::queue_settings), `RATE_LIMITS_TABLE`: where [shared rate limits](crate::middleware::RateLimit::shared) count |
//! | [`processor`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL`, `WORKER_FUNCTION`: the worker's name or ARN | [`CONCURRENCY`](Environment::concurrency), [`INLINE_LIMIT_MS`](Environment::inline_limit), [`LEASE_MS`, `MAX_CONTINUATIONS`](Environment::executor_settings), [`REQUEST_TTL_S`](Environment::queue_settings) |
//! | [`worker`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL` | [`LEASE_MS`, `MAX_CONTINUATIONS`](Environment::executor_settings), [`REQUEST_TTL_S`](Environment::queue_settings) |
//! | [`sweeper`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL` | [`SWEEPER_PACE_MS`, `MAX_CONTINUATIONS`](Environment::sweeper_settings), [`REQUEST_TTL_S`](Environment::queue_settings) |
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
use serde_json::Value;
use tokio::runtime::Builder;

use crate::app::App;
use crate::aws::http_client;
use crate::config::Environment;
use crate::functions::route_response;
use crate::functions::setup::{
    ConnectSetup, DisconnectSetup, Ports, ProcessorSetup, RouterSetup, SweeperSetup, WorkerSetup,
};
use crate::handler::handlers_runtime;
use crate::ports::Timestamp;
use crate::processor::StreamBatch;
use crate::telemetry::{self, record::run};
use crate::worker::dispatch::WorkerEvent;

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
    let setup = ConnectSetup::read(environment, http_client())?;
    on_one_thread(async {
        let connect = setup.function(&Ports::system()).await?;
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
    let setup = DisconnectSetup::read(environment, http_client())?;
    on_one_thread(async {
        let disconnect = setup.function(&Ports::system());
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
    let setup = RouterSetup::read(environment, http_client())?;
    let handlers = handlers_runtime(1)?;
    let handle = handlers.handle().clone();
    on_one_thread(async {
        let router = setup.function(Arc::new(app), &Ports::system(), handle);
        let router = &router;
        // Boxed, since a message on its way is large.
        Box::pin(run(recording, move |event: WebSocketEvent| async move {
            Ok::<_, Error>(route_response(
                router.route_before(&event.payload, deadline(&event.context)).await,
            ))
        }))
        .await
    })
}

/// The `processor` function: runs queued requests that do not take long, and hands the others over to the worker.
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
    let setup = ProcessorSetup::read(environment, http_client())?;
    let handlers = handlers_runtime(setup.concurrency())?;
    let handle = handlers.handle().clone();
    on_one_thread(async {
        let processor = setup.function(Arc::new(app), &Ports::system(), handle);
        let processor = &processor;
        run(recording, move |event: LambdaEvent<StreamBatch>| async move {
            let deadline = deadline(&event.context);
            Ok::<_, Error>(processor.process(event.payload, deadline).await)
        })
        .await
    })
}

/// The `worker` function: runs one request alone, for as long as an invocation lasts.
///
/// Its handler runs on a thread of its own, so that one that burns CPU keeps neither its lease from being renewed nor its frames
/// from being pushed.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn worker(app: App) -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let setup = WorkerSetup::read(environment, http_client())?;
    let handlers = handlers_runtime(1)?;
    let handle = handlers.handle().clone();
    on_one_thread(async {
        let worker = setup.function(Arc::new(app), &Ports::system(), handle);
        let worker = &worker;
        run(recording, move |event: LambdaEvent<WorkerEvent>| async move {
            let deadline = deadline(&event.context);
            // Boxed, since it holds a whole attempt.
            Box::pin(worker.run(&event.payload, deadline)).await.map_err(Error::from)
        })
        .await
    })
}

/// The `sweeper` function: brings back, once a minute, whatever was lost.
///
/// What the schedule says to it is of no interest.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn sweeper() -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(environment.log_level());
    let recording = environment.is_recording();
    let setup = SweeperSetup::read(environment, http_client())?;
    on_one_thread(async {
        let sweeper = setup.function(&Ports::system());
        let sweeper = &sweeper;
        run(recording, move |event: LambdaEvent<Value>| async move {
            sweeper.sweep(deadline(&event.context)).await;
            Ok::<_, Error>(())
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
