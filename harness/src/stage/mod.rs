//! The whole stage, made from a SAM template or in code: in process, for tests, or on one port, run by the functions'
//! own binaries.

mod builder;
mod clock;
mod error;
mod executables;
mod function_fn;
mod items;
mod queues;
mod stream;
mod streamer_function;
mod tables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;
use streamer::ports::{Clock, SystemClock, SystemEntropy, Timestamp};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub use builder::StageBuilder;
pub use error::StageError;
pub use executables::{Executables, Workspace};
pub use function_fn::function_fn;
pub use streamer_function::Services;
pub use tables::create as create_tables;

use crate::client::{Client, ClientError};
use crate::dynamodb::DynamoDb;
use crate::event_source::{EventSourceMapping, LogFailures, OnFailure, Ports};
use crate::faults::Faults;
use crate::gateway::Gateway;
use crate::lambda::{Functions, LogSink, Options, TerminalLog};
use crate::signing_key::{SigningKey, TokenFor};
use crate::sqs::Queues;
use crate::template::{Finding, Template};
use crate::watch;
pub(crate) use clock::TokioClock;
use streamer_function::{Ground, Late};

/// A running stage.
///
/// [`shutdown`](Self::shutdown) ends it in order; dropped, its processes are killed.
#[derive(Debug)]
pub struct Stage {
    /// `None` in process.
    address: Option<SocketAddr>,
    stage_name: String,
    signing_key: SigningKey,
    clock: Arc<dyn Clock>,
    findings: Vec<Finding>,
    /// The tables' names by their names within the template.
    tables: BTreeMap<String, String>,
    faults: Faults,
    dynamodb: DynamoDb,
    queues: Queues,
    functions: Functions,
    gateway: Gateway,
    late_gateway: Late<Gateway>,
    late_functions: Late<Functions>,
    tasks: JoinSet<()>,
    stop_polling: watch::Sender<bool>,
    stop_serving: watch::Sender<bool>,
}

/// The host that URLs name in process, where nobody needs it to reach anything.
const NO_HOST: &str = "stage.localhost";

impl Stage {
    /// How often items whose time to live is over are deleted. AWS takes up to a few days.
    const TTL_SWEEP: Duration = Duration::from_secs(30);
    /// How long a client in process waits for a frame: a little less than until the gateway closes an idle connection.
    const PATIENCE: Duration = Duration::from_secs(590);

    /// What a stage is to be made from.
    pub fn builder() -> StageBuilder {
        StageBuilder::new()
    }

    async fn start(mut builder: StageBuilder) -> Result<Self, StageError> {
        let in_process = builder.executables.is_none();
        let signing_key = match builder.signing_key.take() {
            Some(key) => key,
            None => SigningKey::generate().map_err(StageError::NoKey)?,
        };
        builder.environment.offered = signing_key.parameters();
        let template = builder.read_template()?;
        let Template { functions: of_template, mut tables, queues: of_queues, api, .. } = template;
        let Template { mappings: of_streams, schedules, findings, .. } = template;
        tables.append(&mut builder.tables);

        let listener = match (in_process, builder.listener.take()) {
            (true, _) => None,
            (false, Some(listener)) => Some(serving(listener)?),
            (false, None) => Some(serving(listen(0)?)?),
        };
        let address = listener.as_ref().map(|(_, address)| *address);
        let clock: Arc<dyn Clock> = if in_process {
            Arc::new(TokioClock::starting_at(builder.starts_at))
        } else {
            Arc::new(SystemClock)
        };
        let entropy = builder.entropy.take().unwrap_or_else(|| Arc::new(SystemEntropy::new()));
        let log: Arc<dyn LogSink> = match builder.log.take() {
            Some(log) => log,
            None if in_process => Arc::new(TestOutput),
            None => Arc::new(TerminalLog::stderr()),
        };

        let dynamodb = DynamoDb::builder()
            .clock(Arc::clone(&clock))
            .entropy(Arc::clone(&entropy))
            .faults(builder.faults.clone())
            .region(&builder.environment.region)
            .account_id(&builder.environment.account_id);
        let dynamodb = match builder.shards {
            Some(shards) => dynamodb.shards_per_stream(shards),
            None => dynamodb,
        };
        let dynamodb = dynamodb.shard_lifetime(builder.shard_lifetime);
        let dynamodb = match &builder.data {
            Some(folder) => dynamodb.open(folder)?,
            None => dynamodb.in_memory()?,
        };
        tables::create(&dynamodb, &tables)?;
        let queues = queues::create(
            &of_queues,
            builder.data.as_deref(),
            &builder.environment,
            Arc::clone(&clock),
            Arc::clone(&entropy),
        )?
        .with_faults(builder.faults.clone());

        let api = builder.api_config(api);
        let stage_name = api.stage.clone();
        let (late_gateway, late_functions) = (Late::default(), Late::default());
        let ground = Ground {
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            log: Arc::clone(&log),
            dynamodb: dynamodb.clone(),
            queues: queues.clone(),
            gateway: late_gateway.clone(),
            functions: late_functions.clone(),
        };
        let root = format!("http://{}", host(address));
        let endpoints = BTreeMap::from([
            ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI".to_owned(), format!("{root}/{stage_name}")),
            ("AWS_ENDPOINT_URL_SQS".to_owned(), root.clone()),
            ("AWS_ENDPOINT_URL_LAMBDA".to_owned(), root.clone()),
            ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), root),
        ]);
        let configs = builder.function_configs(&of_template, &ground, &endpoints)?;
        let arns: BTreeMap<String, String> =
            configs.iter().map(|config| (config.name.clone(), config.arn())).collect();
        // A concurrency of nothing stops a function on AWS as well: it is not expected to start.
        let running: Vec<String> = configs
            .iter()
            .filter(|config| config.reserved_concurrency != Some(0))
            .map(|config| config.name.clone())
            .collect();
        let options = Options {
            log,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            faults: builder.faults.clone(),
            destination: Some(Arc::new(queues.clone())),
            ..Options::default()
        };
        let functions = Functions::new(configs, options)?;
        let invoke = Arc::new(functions.clone());
        let gateway = Gateway::new(api, invoke.clone(), Arc::clone(&clock), Arc::clone(&entropy))?
            .with_faults(builder.faults.clone());

        let mut to_poll = Vec::new();
        for mapping in &of_streams {
            let (settings, source) = stream::of_template(mapping, &dynamodb)?;
            to_poll.push((settings, source, queues::on_failure(mapping, &of_queues, &queues)));
        }
        for (table, settings) in builder.mappings {
            let (settings, source) = stream::of(&table, settings, &dynamodb)?;
            to_poll.push((settings, source, Arc::new(LogFailures) as Arc<dyn OnFailure>));
        }
        let mut mappings = Vec::new();
        for (mut settings, source, on_failure) in to_poll {
            if settings.function_arn.is_empty() {
                settings.function_arn = arns.get(&settings.function).cloned().unwrap_or_default();
            }
            let ports = Ports {
                source: Arc::new(source),
                invoke: invoke.clone(),
                on_failure,
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                faults: builder.faults.clone(),
            };
            mappings.push(EventSourceMapping::new(settings, ports)?);
        }

        let (stop_polling, stop_serving) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        if let Some((listener, _)) = listener {
            let app = gateway.router().merge(dynamodb.router()).merge(functions.router());
            let app = queues.in_front_of(app);
            let stopped = until(&stop_serving);
            tasks.spawn(async move {
                let service = app.into_make_service_with_connect_info::<SocketAddr>();
                // It serves until it is stopped: what goes wrong with one connection ends that one.
                let _ = axum::serve(listener, service).with_graceful_shutdown(stopped).await;
            });
        }
        late_gateway.set(Some(gateway.clone()));
        late_functions.set(Some(functions.clone()));

        let (probing, of_template) = (&functions, &of_template);
        let starts = running.iter().map(|name| async move {
            probing.probe(name).await.map_err(|error| {
                let of_template = of_template.iter().find(|function| function.name == *name);
                StageError::FunctionDied {
                    function: of_template.map_or(name, |function| &function.logical_id).clone(),
                    message: error.to_string(),
                }
            })
        });
        if let Err(error) = try_join_all(starts).await {
            functions.shutdown().await;
            late_gateway.set(None);
            late_functions.set(None);
            return Err(error);
        }

        for mapping in mappings {
            tasks.spawn(mapping.run(until(&stop_polling)));
        }
        for schedule in schedules {
            let (clock, entropy) = (Arc::clone(&clock), Arc::clone(&entropy));
            tasks.spawn(schedule.run(functions.clone(), clock, entropy, until(&stop_polling)));
        }
        tasks.spawn(tables::sweep(dynamodb.clone(), Self::TTL_SWEEP, until(&stop_polling)));

        let names = tables.into_iter().map(|table| (table.logical_id, table.name));
        Ok(Self {
            address,
            stage_name,
            signing_key,
            clock,
            findings,
            tables: names.collect(),
            faults: builder.faults,
            dynamodb,
            queues,
            functions,
            gateway,
            late_gateway,
            late_functions,
            tasks,
            stop_polling,
            stop_serving,
        })
    }

    /// The pipe of a WebSocket that is opened in process, without a client of ours on it.
    pub(crate) async fn pipe(&self, request: http::Request<()>) -> Result<crate::gateway::Opened, u16> {
        self.gateway.connect(request).await.map_err(|refusal| refusal.status().as_u16())
    }

    /// Connects a client as `whom`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self, whom: &TokenFor) -> Result<Client, ClientError> {
        self.open(format!("{}?token={}", self.ws_url(), self.token(whom))).await
    }

    /// Connects a client with a request of any kind: a URL below [`ws_url`](Self::ws_url), or an HTTP request with headers of its own.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(&self, request: impl IntoClientRequest + Unpin) -> Result<Client, ClientError> {
        if self.address.is_some() {
            return Client::open(request).await;
        }
        match self.gateway.connect(request.into_client_request()?).await {
            Ok(opened) => Ok(Client::on(opened.stream, opened.headers, Self::PATIENCE).await),
            Err(refusal) => Err(ClientError::Refused {
                status: refusal.status().as_u16(),
                body: String::from_utf8_lossy(refusal.body()).into_owned(),
            }),
        }
    }

    /// What time it is on the stage.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets this much time pass, with all that happens on the stage meanwhile, each thing at its time.
    ///
    /// Where tokio's time is paused, as by `#[tokio::test(start_paused = true)]`, it passes at once.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The faults that happen on the stage: add one, and it holds until its guard is dropped.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Every item of a table as plain JSON, in the order of their JSON. The table is named as in the template, or by its whole
    /// name.
    ///
    /// # Errors
    /// When there is no such table.
    pub async fn items(&self, table: &str) -> Result<Vec<Value>, StageError> {
        items::all(&self.dynamodb, self.tables.get(table).map_or(table, String::as_str)).await
    }

    /// Where WebSocket clients connect. In process nobody listens there: [`connect`](Self::connect) leads in.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/{}", host(self.address), self.stage_name)
    }

    /// Where the management API (`@connections`) answers; in process, it does so by [`Gateway::http_client`] alone.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://{}/{}", host(self.address), self.stage_name)
    }

    /// Where DynamoDB, DynamoDB Streams, SQS and Lambda answer. In process they answer without it: [`DynamoDb::client`],
    /// [`Queues::http_client`](crate::sqs::Queues::http_client) and [`Functions::http_client`].
    #[must_use]
    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", host(self.address))
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

    /// The stage's queues.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.queues
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
        self.end().await;
    }

    /// As [`shutdown`](Self::shutdown).
    pub(crate) async fn end(&mut self) {
        self.gateway.shutdown().await;
        self.stop_polling.send_replace(true);
        self.functions.shutdown().await;
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_serving.send_replace(true);
        // Clients that keep an idle connection open are not waited for.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        self.tasks.shutdown().await;
        self.dynamodb.release_folder();
    }
}

fn host(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| NO_HOST.to_owned(), |address| address.to_string())
}

/// Standard error by the way that tests capture.
#[derive(Debug)]
struct TestOutput;

impl LogSink for TestOutput {
    fn line(&self, function: &str, line: &str) {
        eprintln!("{function:<10} | {line}");
    }
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
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_polling.send_replace(true);
        self.functions.close();
    }
}

fn until(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stop.subscribe();
    async move {
        // The sender is gone when the stage was dropped: that is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
