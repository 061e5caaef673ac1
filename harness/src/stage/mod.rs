//! The whole stage on one port: made from a SAM template, run by the functions' own binaries.

mod error;
mod executables;
mod stream;
mod tables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use error::StageError;
pub use executables::{Executables, Workspace};
pub use tables::create as create_tables;

use crate::dynamodb::DynamoDb;
use crate::event_source::{EventSourceMapping, Ports};
use crate::gateway::{ApiConfig, Gateway, Route};
use crate::lambda::{FunctionConfig, Functions, LogSink, Options, TerminalLog};
use crate::signing_key::{SigningKey, TokenFor};
use crate::template::{Environment, Finding, Function, Template, WebSocketApi};

/// What a stage is made from, and where.
#[derive(Debug)]
pub struct StageConfig {
    /// The SAM template.
    pub template: PathBuf,
    /// The functions' programs, by the name of their binary.
    pub executables: Executables,
    /// Where to listen.
    pub listener: TcpListener,
    /// The folder to keep the tables and streams in. Default none: in memory.
    pub data: Option<PathBuf>,
    /// The key that tokens are signed with.
    pub signing_key: SigningKey,
    /// Where the functions' output goes. Default standard error.
    pub log: Arc<dyn LogSink>,
    /// Values for the template's parameters. `JwtAlgorithm` and `JwtKey`, if it has them, are those of the signing key.
    pub parameters: BTreeMap<String, String>,
}

impl StageConfig {
    /// A stage in memory.
    #[must_use]
    pub fn new(
        template: impl Into<PathBuf>,
        executables: Executables,
        signing_key: SigningKey,
        listener: TcpListener,
    ) -> Self {
        Self {
            template: template.into(),
            executables,
            listener,
            data: None,
            signing_key,
            log: Arc::new(TerminalLog::stderr()),
            parameters: BTreeMap::new(),
        }
    }

    /// What the template is read with: parameters `JwtAlgorithm` and `JwtKey` get the signing key, unless they are given.
    fn environment(&self) -> Environment {
        Environment {
            parameters: self.parameters.clone(),
            offered: self.signing_key.parameters(),
            ..Environment::default()
        }
    }
}

/// A running stage.
///
/// [`shutdown`](Self::shutdown) ends it in order; dropped, its processes are killed.
#[derive(Debug)]
pub struct Stage {
    address: SocketAddr,
    stage_name: String,
    signing_key: SigningKey,
    clock: Arc<dyn Clock>,
    findings: Vec<Finding>,
    dynamodb: DynamoDb,
    functions: Functions,
    gateway: Gateway,
    tasks: JoinSet<()>,
    stop_polling: watch::Sender<bool>,
    stop_serving: watch::Sender<bool>,
}

impl Stage {
    /// How often items whose time to live is over are deleted. AWS takes up to a few days.
    const TTL_SWEEP: Duration = Duration::from_secs(30);

    /// Makes the tables, starts the gateway and one environment of each function, and polls the streams.
    ///
    /// # Errors
    /// When the port is taken, the template cannot be used, the data folder cannot be opened, or a
    /// function does not start: each with what to do about it. Nothing is left running then.
    pub async fn start(config: StageConfig) -> Result<Self, StageError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let environment = config.environment();
        let template = Template::load(&config.template, &environment)?;
        let Some(api) = template.api else { return Err(StageError::NoApi(config.template)) };

        let (listener, address) = serving(config.listener)?;

        let dynamodb = DynamoDb::builder()
            .clock(Arc::clone(&clock))
            .entropy(Arc::clone(&entropy))
            .region(&environment.region)
            .account_id(&environment.account_id);
        let dynamodb = match &config.data {
            Some(folder) => dynamodb.open(folder)?,
            None => dynamodb.in_memory()?,
        };
        tables::create(&dynamodb, &template.tables)?;

        let configs =
            function_configs(&template.functions, &config.executables, &environment, |variables| {
                let root = format!("http://{address}");
                let management = format!("{root}/{}", api.stage_name);
                variables.insert("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI".into(), management);
                variables.insert("AWS_ENDPOINT_URL_LAMBDA".into(), root.clone());
                variables.insert("AWS_ENDPOINT_URL_DYNAMODB".into(), root);
            })?;
        let arns: BTreeMap<String, String> =
            configs.iter().map(|config| (config.name.clone(), config.arn())).collect();
        let options = Options {
            log: config.log,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            ..Options::default()
        };
        let functions = Functions::new(configs, options)?;

        let stage_name = api.stage_name.clone();
        let api = api_config(api, &environment.region);
        let invoke = Arc::new(functions.clone());
        let gateway = Gateway::new(api, invoke.clone(), Arc::clone(&clock), Arc::clone(&entropy))?;

        let mut mappings = Vec::new();
        for mapping in &template.mappings {
            let (settings, source) = stream::mapping(mapping, &arns, &dynamodb)?;
            let ports = Ports {
                source: Arc::new(source),
                invoke: invoke.clone(),
                on_failure: Arc::new(crate::event_source::LogFailures),
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
            };
            mappings.push(EventSourceMapping::new(settings, ports)?);
        }

        let (stop_polling, stop_serving) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        let app = gateway.router().merge(dynamodb.router()).merge(functions.router());
        let stopped = until(&stop_serving);
        tasks.spawn(async move {
            let service = app.into_make_service_with_connect_info::<SocketAddr>();
            // It serves until it is stopped: what goes wrong with one connection ends that one.
            let _ = axum::serve(listener, service).with_graceful_shutdown(stopped).await;
        });

        // A concurrency of nothing stops a function on AWS as well: it is not expected to start.
        let running = template.functions.iter().filter(|function| function.reserved_concurrency != Some(0));
        let starts = running.map(|function| async {
            functions.probe(&function.name).await.map_err(|error| StageError::FunctionDied {
                function: function.logical_id.clone(),
                message: error.to_string(),
            })
        });
        if let Err(error) = try_join_all(starts).await {
            functions.shutdown().await;
            return Err(error);
        }

        for mapping in mappings {
            tasks.spawn(mapping.run(until(&stop_polling)));
        }
        for schedule in template.schedules {
            let (clock, entropy) = (Arc::clone(&clock), Arc::clone(&entropy));
            tasks.spawn(schedule.run(functions.clone(), clock, entropy, until(&stop_polling)));
        }
        tasks.spawn(tables::sweep(dynamodb.clone(), Self::TTL_SWEEP, until(&stop_polling)));

        Ok(Self {
            address,
            stage_name,
            signing_key: config.signing_key,
            clock,
            findings: template.findings,
            dynamodb,
            functions,
            gateway,
            tasks,
            stop_polling,
            stop_serving,
        })
    }

    /// Where WebSocket clients connect.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/{}", self.address, self.stage_name)
    }

    /// Where the management API (`@connections`) answers.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://{}/{}", self.address, self.stage_name)
    }

    /// Where DynamoDB and DynamoDB Streams answer.
    #[must_use]
    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token that the stage accepts.
    #[must_use]
    pub fn token(&self, whom: &TokenFor) -> String {
        self.signing_key.sign(whom, self.clock.now())
    }

    /// The stage's database.
    #[must_use]
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The stage's functions.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The stage's gateway.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What the template says and the stage does not act upon.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Waits until a part of the stage stops by itself, which none does as long as all is well.
    pub async fn failed(&mut self) -> StageError {
        match self.tasks.join_next().await {
            Some(Err(error)) => StageError::Stopped(error.to_string()),
            Some(Ok(())) | None => StageError::Stopped("a part of it has ended".to_owned()),
        }
    }

    /// Closes every connection, ends every process, and returns when nothing is left running.
    pub async fn shutdown(mut self) {
        self.gateway.shutdown().await;
        self.stop_polling.send_replace(true);
        self.functions.shutdown().await;
        self.stop_serving.send_replace(true);
        // Clients that keep an idle connection open are not waited for.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        self.tasks.shutdown().await;
        self.dynamodb.release_folder();
    }
}

/// The functions as the template has them, with what `endpoints` adds to their environment.
fn function_configs(
    functions: &[Function],
    executables: &Executables,
    environment: &Environment,
    endpoints: impl Fn(&mut BTreeMap<String, String>),
) -> Result<Vec<FunctionConfig>, StageError> {
    let config = |function: &Function| {
        let mut variables = function.environment.clone();
        endpoints(&mut variables);
        Ok(FunctionConfig {
            handler: function.handler.clone(),
            environment: variables,
            timeout: function.timeout,
            memory_mib: function.memory_mib,
            reserved_concurrency: function.reserved_concurrency,
            recursive_loop: function.recursive_loop,
            asynchronous: function.asynchronous.clone(),
            region: environment.region.clone(),
            account_id: environment.account_id.clone(),
            ..FunctionConfig::new(&function.name, executables.path(&function.binary)?)
        })
    };
    functions.iter().map(config).collect()
}

/// The WebSocket API as the template has it.
fn api_config(api: WebSocketApi, region: &str) -> ApiConfig {
    let domain = format!("{}.execute-api.{region}.amazonaws.com", api.api_id);
    let mut config = ApiConfig::new(api.api_id, domain);
    config.stage = api.stage_name;
    config.route_selection_expression = api.route_selection_expression;
    let routes = api.routes.into_iter().map(|route| {
        let made = if route.route_response { Route::two_way } else { Route::one_way };
        made(route.key, route.function).integration_timeout(route.integration_timeout)
    });
    config.routes = routes.collect();
    config
}

/// Takes a port of the loopback interface; 0 takes a free one.
///
/// # Errors
/// When it is taken, or may not be.
pub fn listen(port: u16) -> Result<TcpListener, StageError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| StageError::Port { port, source })
}

fn serving(listener: TcpListener) -> Result<(tokio::net::TcpListener, SocketAddr), StageError> {
    let serving = || {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        Ok((tokio::net::TcpListener::from_std(listener)?, address))
    };
    serving().map_err(|source| StageError::Port { port: 0, source })
}

impl Drop for Stage {
    /// Connections that are open hold on to the functions: without them, nothing does.
    fn drop(&mut self) {
        self.gateway.close();
        self.stop_polling.send_replace(true);
    }
}

fn until(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stop.subscribe();
    async move {
        // The sender is gone when the stage was dropped: that is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
