//! The entry points of the six Lambda functions. The `main` of each Lambda function calls its entry point.
//!
//! Each entry point reads the environment variables, creates its AWS clients once, and then processes events. If
//! environment variables are missing or invalid, the function does not start, and its error lists all problems.
//!
//! ```no_run
//! use streamer::app::App;
//!
//! fn main() -> Result<(), streamer::lambda::Error> {
//!     let app = App::new();
//!     streamer::lambda::router(app)
//! }
//! ```
//!
//! # Required environment variables
//!
//! These variables are required in addition to the variables that Lambda itself sets:
//!
//! | variable | functions | meaning |
//! |---|---|---|
//! | `CONNECTIONS_TABLE` | connect, disconnect, router | name of the table of connections |
//! | `REQUESTS_TABLE` | all except connect | name of the table of requests |
//! | `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | router, processor, worker, sweeper | endpoint of the WebSocket API's management API, through which frames are pushed to clients |
//! | `DEAD_LETTER_QUEUE_URL` | processor, worker, sweeper | URL of the SQS queue for dead letters, that is, messages about requests that failed for good |
//! | `WORKER_FUNCTION` | processor | name or ARN of the worker function |
//! | `JWT_ALGORITHM` | connect | permitted signature algorithm of tokens: `RS256`, `ES256`, `EdDSA` or `HS256`; for a JSON Web Key Set, a comma-separated list |
//! | `JWT_KEY` | connect | key that verifies tokens: a public key in PEM, a JSON Web Key Set, or the secret itself for `HS256` |
//! | `JWT_KEY_SSM_PARAMETER` | connect | alternative to `JWT_KEY`: name of the SSM parameter that contains the key |
//! | `JWT_KEY_SECRET_ID` | connect | alternative to `JWT_KEY`: id of the Secrets Manager secret that contains the key |
//!
//! # Optional environment variables
//!
//! | variable | functions | meaning | unit | default | bounds |
//! |---|---|---|---|---|---|
//! | `JWT_ISSUER`, `JWT_AUDIENCE` | connect | required values of the claims `iss` and `aud` in tokens | | any value | |
//! | `ALLOWED_TENANTS` | connect | comma-separated list of the tenants that may connect | | all tenants | |
//! | `CANCEL_ON_DISCONNECT` | disconnect | `true`: if a connection closes, cancel the requests that came over it, except those with another subscriber | `true` or `false` | `false` | |
//! | `ASYNC_THRESHOLD_MS` | router | a request with a longer estimated duration is queued; 0 queues every request whose estimate is not zero | ms | 5,000 | 0 to 25,000 |
//! | `INLINE_LIMIT_MS` | router, processor | a queued request with a longer estimated duration runs alone in an invocation of the worker; other queued requests run concurrently in the processor. The value 0 sends every request whose estimate is not zero to the worker. An invocation of the processor that has less time left than this value starts no more requests | ms | 30,000 | 0 to 870,000 |
//! | `RATE_LIMITS_TABLE` | router | name of the table in which [shared rate limits](crate::middleware::RateLimit::shared) are counted | | none | |
//! | `CONCURRENCY` | processor | number of requests of a batch that run concurrently | requests | 10 | 1 to 100 |
//! | `LEASE_MS` | processor, worker | duration of a lease; if an invocation stops renewing its lease, its request can be run again after this time | ms | 60,000 | 30,000 to 900,000 |
//! | `MAX_CONTINUATIONS` | processor, worker, sweeper | maximum number of times that a request may continue from a checkpoint in a new invocation | times | 100 (a day of invocations of 15 minutes) | 0 to 10,000 |
//! | `SWEEPER_PACE_MS` | sweeper | interval at which the sweeper queries for due items | ms | 5,000 | 1,000 to 60,000 |
//! | `REQUEST_TTL_S` | all except connect | how long a request is kept after it has become terminal | s | 604,800 (7 days) | 3,600 to 31,536,000 (a year) |
//! | `LOG_LEVEL` | all | minimum level of the events that are logged | `off`, `error`, `warn`, `info`, `debug` or `trace` | `info` | |
//! | `STREAMER_RECORD` | all | `true`: log every event and its reply, including tokens and payloads, as the input for test fixtures; enable recording only temporarily, and only where logs may contain such data | `true` or `false` | `false` | |

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

/// The error that an entry point of this module returns if its function cannot start, or cannot continue.
pub type Error = lambda_runtime::Error;

/// Runs the `connect` function, which accepts WebSocket connections with a valid token.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn connect() -> Result<(), Error> {
    run::<LambdaConnect>(App::new())
}

/// Runs the `disconnect` function, which deletes closed connections and unsubscribes them from requests.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn disconnect() -> Result<(), Error> {
    run::<LambdaDisconnect>(App::new())
}

/// Runs the `router` function, which receives the clients' messages, answers quick requests and queues slow ones.
///
/// Handlers run on a separate thread, so that the router can answer in time even if a handler computes for long
/// without awaiting. While such a handler blocks its thread, later handlers run on a new thread.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn router(app: App) -> Result<(), Error> {
    run::<LambdaRouter>(app)
}

/// Runs the `processor` function, which runs short queued requests, and dispatches long ones to the worker.
///
/// Handlers run on separate threads, so that leases are renewed and frames are pushed even while a handler computes
/// for long without awaiting.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn processor(app: App) -> Result<(), Error> {
    run::<LambdaProcessor>(app)
}

/// Runs the `worker` function, which runs one queued request per invocation.
///
/// The handler runs on a separate thread, so that the lease is renewed and frames are pushed even while the handler
/// computes for long without awaiting.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn worker(app: App) -> Result<(), Error> {
    run::<LambdaWorker>(app)
}

/// Runs the `sweeper` function, which a schedule invokes once a minute to recover lost requests and deliveries.
///
/// The sweeper handles expired leases, lost dispatches, due retries and undelivered terminal frames. The content of
/// the schedule's event is ignored.
///
/// # Errors
/// An [`Error`] if an environment variable is missing or invalid, or if Lambda's Runtime API does not answer.
pub fn sweeper() -> Result<(), Error> {
    run::<LambdaSweeper>(App::new())
}

/// Reads the environment variables, creates the function once, and processes its events on the current thread.
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
        // Boxed, because the future that processes an event is large.
        Box::pin(record::run(is_recording, answer)).await
    })
}
