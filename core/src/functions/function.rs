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
/// A function starts in two steps. First [`read`](Self::read) reads all settings, so that all missing and invalid
/// settings are reported together. Then [`start`](Self::start) creates the function with the clock and other
/// resources of its [`Host`].
pub trait Function: fmt::Debug + Sized + Send + Sync + 'static {
    /// Type of the settings that the function reads from its environment variables.
    type Setup: Send;
    /// Type of the event with which Lambda invokes the function.
    type Event: DeserializeOwned + Send;
    /// Type of the function's reply to an event.
    type Reply: Serialize + Send;

    /// Reads the function's settings from its environment variables. The function's AWS clients will use the HTTP
    /// client `http`.
    ///
    /// Missing and invalid variables are recorded in `environment` as problems. If the method returns `None`, at
    /// least one problem was recorded.
    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<Self::Setup>;

    /// Returns the number of threads for the function's handlers. Default 0, for a function that runs no
    /// handlers.
    fn handler_threads(_: &Self::Setup) -> usize {
        0
    }

    /// Creates the function from its settings. A function that runs handlers calls `app` to get the user's app.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting that is stored outside of the environment, such as the key that verifies
    /// tokens, cannot be read.
    fn start(
        setup: Self::Setup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> impl Future<Output = Result<Self, ConfigError>> + Send;

    /// Handles an event. Returns the reply before `deadline`, the end of the invocation.
    ///
    /// # Errors
    /// [`StoreError`] if the event was not processed. The invocation then fails, and Lambda may deliver the event
    /// again.
    fn handle(
        &self,
        event: Self::Event,
        deadline: Timestamp,
    ) -> impl Future<Output = Result<Self::Reply, StoreError>> + Send;
}

/// Resources that a function receives from the process in which it runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// Clock from which the function reads the current time.
    pub clock: Arc<dyn Clock>,
    /// Source of unpredictable random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Destination of the function's metrics.
    pub metrics: Arc<dyn MetricSink>,
    /// Tokio runtime that runs the user's handlers.
    pub handler_runtime: Handle,
}

impl Host {
    /// Creates the host of a function on Lambda, with the system's clock and randomness, and with metrics to
    /// standard output.
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
