use std::fmt;
use std::future::Future;
use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::app::App;
use crate::config::{ConfigError, Environment};
use crate::ports::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};
use crate::store::StoreError;
use crate::telemetry::{MetricSink, StandardOutput};

/// One of Streamer's Lambda functions.
///
/// A function starts in two steps. First [`read`](Self::read) reads all settings, so that all problems with
/// the environment are reported together. Then [`start`](Self::start) creates the function with the clock and
/// other resources of its [`Host`].
pub trait Function: fmt::Debug + Sized + Send + Sync + 'static {
    /// The settings that the function reads from its environment variables.
    type Setup: Send;
    /// The event with which Lambda invokes the function.
    type Event: DeserializeOwned + Send;
    /// The function's reply to an event.
    type Reply: Serialize + Send;

    /// Reads the function's settings from its environment variables. The function's AWS clients will send
    /// through `http`.
    ///
    /// Problems are recorded in `environment`. `None` means that at least one problem was recorded.
    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<Self::Setup>;

    /// Returns the number of threads that the function's handlers need. Default 0, for a function that runs
    /// no handlers.
    fn handler_threads(_: &Self::Setup) -> usize {
        0
    }

    /// Creates the function from its settings. Only a function that runs handlers calls `app`.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting that is stored outside of the environment, such as the key that verifies
    /// tokens, cannot be read.
    fn start(
        setup: Self::Setup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> impl Future<Output = Result<Self, ConfigError>> + Send;

    /// Handles an event, and returns the reply before `deadline`, the end of the invocation.
    ///
    /// # Errors
    /// [`StoreError`] if the event was not processed, so that Lambda may deliver it again.
    fn handle(
        &self,
        event: Self::Event,
        deadline: Timestamp,
    ) -> impl Future<Output = Result<Self::Reply, StoreError>> + Send;
}

/// Resources that a function gets from the process in which it runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// Clock that gives the current time.
    pub clock: Arc<dyn Clock>,
    /// Source of unpredictable random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Receives the function's metrics.
    pub metrics: Arc<dyn MetricSink>,
    /// Tokio runtime that runs the user's handlers.
    pub handler_runtime: Handle,
}

impl Host {
    /// Creates the host of a function on Lambda: system clock, system randomness, and metrics to standard
    /// output.
    #[must_use]
    pub fn system(handler_runtime: Handle) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            metrics: Arc::new(StandardOutput),
            handler_runtime,
        }
    }
}
