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
use crate::aws::http_client;
use crate::config::Environment;
use crate::functions::route_response;
use crate::functions::setup::{ConnectSetup, DisconnectSetup, Ports, ProcessorSetup, RouterSetup};
use crate::handler::handlers_runtime;
use crate::ports::Timestamp;
use crate::processor::StreamBatch;
use crate::telemetry::{self, record::run};

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

fn deadline(context: &lambda_runtime::Context) -> Timestamp {
    Timestamp::from_millis(context.deadline)
}

fn on_one_thread(main: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    Builder::new_current_thread().enable_all().build()?.block_on(main)
}
