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

/// One of Streamer's functions.
///
/// It starts in two steps. First it reads its settings, so that everything that is wrong with the environment is reported at
/// once. Then it is made, on the clock and with the clients of its host.
pub trait Function: fmt::Debug + Sized + Send + Sync + 'static {
    /// What it reads from its environment.
    type Setup: Send;
    /// What it is invoked with.
    type Event: DeserializeOwned + Send;
    /// What it answers.
    type Reply: Serialize + Send;

    /// Reads what it needs; its clients will call through `http`.
    ///
    /// What is wrong is left to `environment` to report. Without a value there is something to report.
    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<Self::Setup>;

    /// How many threads its handlers need; 0, the default, where it runs no handlers.
    fn handler_threads(_: &Self::Setup) -> usize {
        0
    }

    /// Makes the function. A function that runs handlers, and no other, asks for the `app`.
    ///
    /// # Errors
    /// When something that lies outside of the environment cannot be read, such as the key that tokens are verified with.
    fn start(
        setup: Self::Setup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> impl Future<Output = Result<Self, ConfigError>> + Send;

    /// Answers an event, before `deadline`, when the invocation ends.
    ///
    /// # Errors
    /// When the event was not taken up, and may come again.
    fn handle(
        &self,
        event: Self::Event,
        deadline: Timestamp,
    ) -> impl Future<Output = Result<Self::Reply, StoreError>> + Send;
}

/// What a function has of the machine and the process that it runs in.
#[derive(Clone, Debug)]
pub struct Host {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where numbers come from that nobody can guess.
    pub entropy: Arc<dyn Entropy>,
    /// Where metrics go.
    pub metrics: Arc<dyn MetricSink>,
    /// The runtime that handlers run on.
    pub handler_runtime: Handle,
}

impl Host {
    /// The machine's own clock and randomness, and standard output for metrics: what a function has on Lambda.
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
