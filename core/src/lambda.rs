//! The functions' `main`s: each reads its environment, makes its clients once, and answers events.
//!
//! What each reads beside `LOG_LEVEL`, `STREAMER_RECORD` (`true` writes every event and its reply to the log, with tokens and payloads) and what Lambda itself sets:
//!
//! | function | must be set | may be set |
//! |---|---|---|
//! | [`connect`] | `CONNECTIONS_TABLE`, and [what tokens are verified with](TokenKey::from_env) | `ALLOWED_TENANTS`, `JWT_ISSUER`, `JWT_AUDIENCE` |
//! | [`disconnect`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE` | [`CANCEL_ON_DISCONNECT`](crate::functions::Disconnect::cancelling), [`REQUEST_TTL_S`](QueueSettings::from_env) |
//! | [`router`] | `CONNECTIONS_TABLE`, `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | [`ASYNC_THRESHOLD_MS`](RouterSettings::from_env), [`INLINE_LIMIT_MS`](ProcessorSettings::from_env), [`REQUEST_TTL_S`](QueueSettings::from_env), `RATE_LIMITS_TABLE`: where [shared rate limits](crate::middleware::RateLimit::shared) count |
//! | [`processor`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL`, `WORKER_FUNCTION`: the worker's name or ARN | [`CONCURRENCY`](ProcessorSettings::from_env), [`INLINE_LIMIT_MS`](ProcessorSettings::from_env), [`LEASE_MS`, `MAX_CONTINUATIONS`](ExecutorSettings::from_env), [`REQUEST_TTL_S`](QueueSettings::from_env) |
//! | [`worker`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL` | [`LEASE_MS`, `MAX_CONTINUATIONS`](ExecutorSettings::from_env), [`REQUEST_TTL_S`](QueueSettings::from_env) |
//! | [`sweeper`] | `REQUESTS_TABLE`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `DEAD_LETTER_QUEUE_URL` | [`SWEEPER_PACE_MS`, `MAX_CONTINUATIONS`](SweeperSettings::from_env), [`REQUEST_TTL_S`](QueueSettings::from_env) |
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

use std::sync::Arc;

use lambda_runtime::LambdaEvent;
use tokio::runtime::{Builder, Handle};

use crate::app::App;
#[cfg(doc)]
use crate::auth::TokenKey;
use crate::aws::http_client;
use crate::config::Environment;
#[cfg(doc)]
use crate::executor::ExecutorSettings;
use crate::functions::{
    Function, Host, LambdaConnect, LambdaDisconnect, LambdaProcessor, LambdaRouter, LambdaSweeper,
    LambdaWorker,
};
use crate::handler::handlers_runtime;
use crate::ports::Timestamp;
#[cfg(doc)]
use crate::processor::ProcessorSettings;
#[cfg(doc)]
use crate::router::RouterSettings;
#[cfg(doc)]
use crate::store::dynamodb::QueueSettings;
#[cfg(doc)]
use crate::sweeper::SweeperSettings;
use crate::telemetry::{self, record};

/// Why a function could not start, or could not go on.
pub type Error = lambda_runtime::Error;

/// The `connect` function: lets in whoever has a valid token.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn connect() -> Result<(), Error> {
    run::<LambdaConnect>(App::new())
}

/// The `disconnect` function: forgets connections, and takes them off their requests.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn disconnect() -> Result<(), Error> {
    run::<LambdaDisconnect>(App::new())
}

/// The `router` function: answers messages, or queues what they ask for.
///
/// Quick handlers run on a thread of their own, so that one that burns CPU is timed out like any other; those that come
/// after it get another thread.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn router(app: App) -> Result<(), Error> {
    run::<LambdaRouter>(app)
}

/// The `processor` function: runs queued requests that do not take long, and hands the others over to the worker.
///
/// Handlers run on threads of their own, so that one that burns CPU keeps neither the leases of its
/// batch from being renewed nor its frames from being pushed.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn processor(app: App) -> Result<(), Error> {
    run::<LambdaProcessor>(app)
}

/// The `worker` function: runs one request alone, for as long as an invocation lasts.
///
/// Its handler runs on a thread of its own, so that one that burns CPU keeps neither its lease from being renewed nor its frames
/// from being pushed.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn worker(app: App) -> Result<(), Error> {
    run::<LambdaWorker>(app)
}

/// The `sweeper` function: brings back, once a minute, whatever was lost.
///
/// What the schedule says to it is of no interest.
///
/// # Errors
/// When the environment is wrong, or Lambda's Runtime API is not there.
pub fn sweeper() -> Result<(), Error> {
    run::<LambdaSweeper>(App::new())
}

/// Reads the environment, makes the function once, and answers events on one thread.
fn run<F: Function>(app: App) -> Result<(), Error> {
    let mut environment = Environment::of_process();
    telemetry::init(telemetry::log_level(&mut environment));
    let is_recording = record::is_recording(&mut environment);
    let setup = F::read(&mut environment, http_client());
    let setup = environment.finish_with(setup)?;
    let handlers = match F::handler_threads(&setup) {
        0 => None,
        threads => Some(handlers_runtime(threads)?),
    };
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let handler_runtime = handlers.as_ref().map_or_else(Handle::current, |own| own.handle().clone());
        let function = F::start(setup, &Host::system(handler_runtime), || Arc::new(app)).await?;
        let function = &function;
        let answer = move |event: LambdaEvent<F::Event>| async move {
            let deadline = Timestamp::from_millis(event.context.deadline);
            function.handle(event.payload, deadline).await.map_err(Error::from)
        };
        // Boxed, since an event on its way is large.
        Box::pin(record::run(is_recording, answer)).await
    })
}
