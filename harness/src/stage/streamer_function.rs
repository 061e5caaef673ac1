//! Runs Streamer's own functions in process: the same code as in their binaries, with JSON events and
//! replies, but without a process, socket or thread.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use streamer::app::App;
use streamer::config::{ConfigError, Environment};
use streamer::functions::{
    Function, Host, LambdaConnect, LambdaDisconnect, LambdaProcessor, LambdaRouter, LambdaSweeper,
    LambdaWorker,
};
use streamer::ports::{Clock, Entropy};
use streamer::store::StoreError;
use streamer::telemetry::{self, MetricLine, MetricSink};
use tokio::runtime::Handle;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use tracing::level_filters::LevelFilter;

use super::clock::SkewedClock;
use streamer_fakes::dynamodb::DynamoDb;
use streamer_fakes::faults::Caller;
use streamer_fakes::gateway::Gateway;
use streamer_fakes::lambda::{
    Functions, InProcess, InProcessEnvironment, InProcessEvent, Invocation, InvokeError, LogSink, Starting,
};
use streamer_fakes::sqs::Queues;

/// Returns the code of the Streamer function that is built from `binary`; `None` for any other binary.
pub(super) fn code_of(binary: &str, apps: &Apps, backends: &Backends) -> Option<Arc<dyn InProcess>> {
    fn code<F: Function>(apps: &Apps, backends: &Backends) -> Arc<dyn InProcess> {
        let function = PhantomData::<fn() -> F>;
        Arc::new(StreamerFunction { function, apps: apps.clone(), backends: backends.clone() })
    }
    let code = match binary {
        "connect" => code::<LambdaConnect>,
        "disconnect" => code::<LambdaDisconnect>,
        "router" => code::<LambdaRouter>,
        "processor" => code::<LambdaProcessor>,
        "worker" => code::<LambdaWorker>,
        "sweeper" => code::<LambdaSweeper>,
        _ => return None,
    };
    Some(code(apps, backends))
}

/// The user's app: one app for the whole stage, or a new app for each environment of a function, as on AWS.
#[derive(Clone)]
pub(super) enum Apps {
    Shared(Arc<App>),
    Each(Arc<dyn Fn(&Services) -> App + Send + Sync>),
}

/// Services of the stage for the code of one environment of a function; see
/// [`StageBuilder::app_with_services`](super::StageBuilder::app_with_services).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Services {
    /// HTTP client for the configuration of any AWS SDK client. It reaches the stage's DynamoDB, SQS, Lambda
    /// and `@connections`; each call names this function as its caller, so that faults can match the call.
    pub http_client: SharedHttpClient,
    /// Environment variables of the function, such as the names of the tables.
    pub variables: BTreeMap<String, String>,
    /// Clock of the function's environment: the stage's clock, plus a skew if a
    /// [fault](streamer_fakes::faults::Fault::skew) sets one.
    pub clock: Arc<dyn Clock>,
    /// Version of the function. The first version is 1, and each [deploy](Functions::deploy) adds 1.
    pub version: u32,
    /// The stage's source of randomness, from which ids are made.
    pub entropy: Arc<dyn Entropy>,
}

impl Apps {
    fn app(&self, services: &Services) -> Arc<App> {
        match self {
            Self::Shared(app) => Arc::clone(app),
            Self::Each(make) => Arc::new(make(services)),
        }
    }
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "Shared",
            Self::Each(_) => "Each",
        })
    }
}

/// The clock, the log and the services that functions in process use.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) dynamodb: DynamoDb,
    pub(super) queues: Queues,
    pub(super) gateway: LateBound<Gateway>,
    pub(super) functions: LateBound<Functions>,
}

/// A component of the stage that calls functions and is called by functions, such as the gateway. The
/// component is set after its creation, and removed when the stage ends. Otherwise the component and the
/// functions would keep each other alive.
#[derive(Clone, Debug)]
pub(super) struct LateBound<T>(Arc<Mutex<Option<T>>>);

impl<T> Default for LateBound<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> LateBound<T> {
    pub(super) fn set(&self, made: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = made;
    }

    fn get(&self) -> Result<T, ConnectorError> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        made.ok_or_else(|| {
            ConnectorError::io(
                "the gateway and the functions no longer exist, because the stage has ended".into(),
            )
        })
    }
}

/// One of Streamer's functions, as code that runs in process.
#[derive(Debug)]
struct StreamerFunction<F> {
    function: PhantomData<fn() -> F>,
    apps: Apps,
    backends: Backends,
}

impl<F: Function> StreamerFunction<F> {
    /// Returns a tracing subscriber that writes the function's log to the stage's log.
    fn logging(&self, function: &str, level: LevelFilter) -> Dispatch {
        let (function, log) = (function.to_owned(), Arc::clone(&self.backends.log));
        telemetry::lines_to(level, move |line| log.line(&function, line))
    }

    async fn function(
        &self,
        caller: Caller,
        mut environment: Environment<'_>,
        variables: &BTreeMap<String, String>,
    ) -> Result<F, ConfigError> {
        let Backends { clock, entropy, log, dynamodb, queues, gateway, functions } = &self.backends;
        let clock: Arc<dyn Clock> = Arc::new(SkewedClock::new(Arc::clone(clock), caller.skew()));
        let version = caller.version();
        let metrics = Arc::new(MetricsToLog { function: caller.function().to_owned(), log: Arc::clone(log) });
        let handler_runtime = Handle::current();
        let host = Host { clock: Arc::clone(&clock), entropy: Arc::clone(entropy), metrics, handler_runtime };
        let http_client = SharedHttpClient::new(Clients {
            dynamodb: dynamodb.http_client_for(caller.clone()),
            queues: queues.http_client_for(caller.clone()),
            gateway: gateway.clone(),
            functions: functions.clone(),
            caller,
        });
        let setup = F::read(&mut environment, http_client.clone());
        let setup = environment.finish_with(setup)?;
        let (variables, entropy) = (variables.clone(), Arc::clone(entropy));
        let services = Services { http_client, variables, clock, version, entropy };
        F::start(setup, &host, || self.apps.app(&services)).await
    }
}

impl<F: Function> InProcess for StreamerFunction<F> {
    fn start(&self, caller: Caller, variables: BTreeMap<String, String>) -> Starting<'_> {
        Box::pin(async move {
            let mut environment = Environment::new(|name: &str| variables.get(name).cloned());
            // An invalid log level is recorded here, and reported together with all other invalid variables.
            let level = telemetry::log_level(&mut environment);
            let logging = self.logging(caller.function(), level);
            match self.function(caller, environment, &variables).with_subscriber(logging.clone()).await {
                Ok(function) => Ok(Box::new(Logging { function, logging }) as Box<dyn InProcessEnvironment>),
                Err(error) => Err(failed("Runtime.ExitError", error.to_string())),
            }
        })
    }
}

/// A started function, with the subscriber that receives its log.
#[derive(Debug)]
struct Logging<F> {
    function: F,
    logging: Dispatch,
}

impl<F: Function> InProcessEnvironment for Logging<F> {
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_> {
        let Self { function, logging } = self;
        let invocation = async move {
            match function.handle(read(&event.payload)?, event.deadline).await {
                Ok(answer) => reply(&answer),
                Err(error) => Err(failed(std::any::type_name::<StoreError>(), error.to_string())),
            }
        };
        Box::pin(invocation.with_subscriber(logging.clone()))
    }
}

fn read<T: DeserializeOwned>(payload: &Bytes) -> Result<T, InvokeError> {
    serde_json::from_slice(payload)
        .map_err(|error| failed(std::any::type_name::<serde_json::Error>(), error.to_string()))
}

fn reply<T: Serialize>(reply: &T) -> Result<Bytes, InvokeError> {
    let json = serde_json::to_vec(reply);
    json.map(Bytes::from)
        .map_err(|error| failed(std::any::type_name::<serde_json::Error>(), error.to_string()))
}

fn failed(error_type: &str, message: String) -> InvokeError {
    InvokeError::Function { error_type: error_type.to_owned(), message }
}

/// Writes metrics as lines of the function's log, from where CloudWatch reads them.
#[derive(Debug)]
struct MetricsToLog {
    function: String,
    log: Arc<dyn LogSink>,
}

impl MetricSink for MetricsToLog {
    fn write(&self, line: &MetricLine) {
        self.log.line(&self.function, &line.to_json());
    }
}

/// HTTP client that routes each SDK call to a service of the stage, by the headers and path of the call. The
/// host of the call is ignored.
#[derive(Clone, Debug)]
struct Clients {
    dynamodb: SharedHttpClient,
    queues: SharedHttpClient,
    gateway: LateBound<Gateway>,
    functions: LateBound<Functions>,
    caller: Caller,
}

impl Clients {
    fn service(&self, request: &HttpRequest) -> Result<SharedHttpClient, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        if target.starts_with("DynamoDB") {
            return Ok(self.dynamodb.clone());
        }
        if target.starts_with("AmazonSQS") {
            return Ok(self.queues.clone());
        }
        // This check comes before the check for `connections/`, because a function's name may contain that
        // text.
        if request.uri().contains("/2015-03-31/functions/") {
            return Ok(self.functions.get()?.http_client_for(self.caller.clone()));
        }
        if request.uri().contains("connections/") {
            return Ok(self.gateway.get()?.http_client_for(self.caller.clone()));
        }
        let message = format!(
            "the stage in process has no service for the call {target} {}; services: DynamoDB, SQS, Lambda, \
             @connections",
            request.uri()
        );
        Err(ConnectorError::user(message.into()))
    }
}

impl HttpClient for Clients {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let (settings, components) = (settings.clone(), components.clone());
        SharedHttpConnector::new(Connector { clients: self.clone(), settings, components })
    }
}

#[derive(Debug)]
struct Connector {
    clients: Clients,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match self.clients.service(&request) {
            Ok(client) => client.http_connector(&self.settings, &self.components).call(request),
            Err(error) => HttpConnectorFuture::ready(Err(error)),
        }
    }
}
