//! The functions' `main`s: each reads its environment, makes its clients once, and answers events.
//!
//! What must be set, beside what Lambda itself sets:
//!
//! | variable | functions | meaning |
//! |---|---|---|
//! | `CONNECTIONS_TABLE` | connect, disconnect, router | the table of connections |
//! | `REQUESTS_TABLE` | all but connect | the table of requests |
//! | `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | router, processor, worker, sweeper | where clients are reached |
//! | `DEAD_LETTER_QUEUE_URL` | processor, worker, sweeper | the queue of what has failed for good |
//! | `WORKER_FUNCTION` | processor | the worker's name or ARN |
//! | `JWT_ALGORITHM` | connect | what tokens may be signed with: `RS256`, `ES256`, `EdDSA`, `HS256`; for a key set, several, with commas |
//! | `JWT_KEY` | connect | a public key in PEM, a JSON Web Key Set, or with HS256 the secret itself |
//! | `JWT_KEY_SSM_PARAMETER` | connect | instead: the name of the SSM parameter that holds it |
//! | `JWT_KEY_SECRET_ID` | connect | instead: the name of the secret that holds it |
//!
//! What may be set:
//!
//! | variable | functions | meaning | unit | default | bounds |
//! |---|---|---|---|---|---|
//! | `JWT_ISSUER`, `JWT_AUDIENCE` | connect | what a token must name as `iss` and `aud` | | anything | |
//! | `ALLOWED_TENANTS` | connect | the tenants that may connect, with commas | | all | |
//! | `CANCEL_ON_DISCONNECT` | disconnect | whether a connection's end cancels its requests that nobody else listens to | `true` or `false` | `false` | |
//! | `ASYNC_THRESHOLD_MS` | router | what is expected to take longer is queued; with 0, everything whose handler says that it takes any time | ms | 5,000 | 0 to 25,000 |
//! | `INLINE_LIMIT_MS` | router, processor | what is expected to take longer is run by the worker, alone, and not by the processor, beside others; also how much time an invocation of the processor must have left to start a request; with 0, the worker runs whatever is expected to take any time | ms | 30,000 | 0 to 870,000 |
//! | `RATE_LIMITS_TABLE` | router | where [shared rate limits](crate::middleware::RateLimit::shared) count | | none | |
//! | `CONCURRENCY` | processor | how many requests of a batch run at once | requests | 10 | 1 to 100 |
//! | `LEASE_MS` | processor, worker | how long a request stays with an invocation that gives no sign of life | ms | 60,000 | 30,000 to 900,000 |
//! | `MAX_CONTINUATIONS` | processor, worker, sweeper | how often a request may go on from a checkpoint in a fresh invocation | times | 100 (a day of invocations of 15 minutes) | 0 to 10,000 |
//! | `SWEEPER_PACE_MS` | sweeper | how often it looks for what falls due | ms | 5,000 | 1,000 to 60,000 |
//! | `REQUEST_TTL_S` | all but connect | how long an ended request is kept | s | 604,800 (7 days) | 3,600 to 31,536,000 (a year) |
//! | `LOG_LEVEL` | all | how much is logged | `off`, `error`, `warn`, `info`, `debug` or `trace` | `info` | |
//! | `STREAMER_RECORD` | all | whether every event and its reply goes to the log, with tokens and payloads, for fixtures to be made of: for a while, and for a stage whose log may hold that | `true` or `false` | `false` | |
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
use crate::aws::http_client;
use crate::config::Environment;
use crate::functions::{
    Function, Host, LambdaConnect, LambdaDisconnect, LambdaProcessor, LambdaRouter, LambdaSweeper,
    LambdaWorker,
};
use crate::handler::handlers_runtime;
use crate::ports::Timestamp;
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
