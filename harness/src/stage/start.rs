//! Starts a stage: the steps from a builder to a running stage.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy, TokioClock};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::builder::StageBuilder;
use super::streamer_function::{Backends, LateBound};
use super::{Stage, StageError, host, listen, queues, stream, tables};
use crate::signing_key::SigningKey;
use crate::template::{self, Template};
use streamer_fakes::dynamodb::DynamoDb;
use streamer_fakes::event_source::{EventSourceMapping, LogFailures, OnFailure, Ports};
use streamer_fakes::gateway::Gateway;
use streamer_fakes::lambda::{FunctionConfig, Functions, LogSink, Options, Schedule, TerminalLog};
use streamer_fakes::watch;

/// Interval at which the stage deletes items whose time to live has passed. On AWS, the deletion may take a
/// few days.
const TTL_SWEEP: Duration = Duration::from_secs(30);

impl StageBuilder {
    /// Starts the stage: creates the tables and queues, starts the gateway and one environment of each
    /// function, then polls the streams.
    ///
    /// # Errors
    /// [`StageError`] if the port is in use, the template is invalid, the data folder cannot be opened, or a
    /// function has no code or does not start. The message says how to fix the problem. After an error, no
    /// process or task of the stage is left running.
    pub async fn start(mut self) -> Result<Stage, StageError> {
        let signing_key = self.take_signing_key()?;
        let mut template = self.read_template()?;
        template.tables.append(&mut self.tables);
        let listener = self.take_listener()?;
        let address = listener.as_ref().map(|(_, address)| *address);
        let backends = self.backends(&template)?;

        let api = self.api_config(template.api.take());
        let stage_name = api.stage.clone();
        let endpoints = endpoints(address, &stage_name);
        let configs = self.function_configs(&template.functions, &backends, &endpoints)?;
        let expected = expected_to_start(&configs);
        let arns = configs.iter().map(|config| (config.name.clone(), config.arn())).collect();
        let functions = self.functions(configs, &backends)?;
        let (clock, entropy) = (Arc::clone(&backends.clock), Arc::clone(&backends.entropy));
        let gateway =
            Gateway::new(api, Arc::new(functions.clone()), clock, entropy)?.with_faults(self.faults.clone());
        let mappings = self.event_source_mappings(&template, &backends, &functions, &arns)?;

        let names = template.tables.into_iter().map(|table| (table.logical_id, table.name));
        let mut stage = Stage {
            address,
            stage_name,
            signing_key,
            clock: backends.clock,
            findings: template.findings,
            tables: names.collect(),
            faults: self.faults,
            dynamodb: backends.dynamodb,
            queues: backends.queues,
            functions,
            gateway,
            late_gateway: backends.gateway,
            late_functions: backends.functions,
            tasks: JoinSet::new(),
            stop_polling: watch::Sender::new(false),
            stop_serving: watch::Sender::new(false),
        };
        if let Some((listener, _)) = listener {
            stage.serve(listener);
        }
        stage.late_gateway.set(Some(stage.gateway.clone()));
        stage.late_functions.set(Some(stage.functions.clone()));
        if let Err(error) = stage.start_functions(&expected, &template.functions).await {
            stage.functions.shutdown().await;
            return Err(error);
        }
        stage.poll(mappings, template.schedules, &backends.entropy);
        Ok(stage)
    }

    /// Returns the key pair that signs tokens, and offers its public key as a value for the template's
    /// parameters.
    fn take_signing_key(&mut self) -> Result<SigningKey, StageError> {
        let key = match self.signing_key.take() {
            Some(key) => key,
            None => SigningKey::generate().map_err(StageError::NoKey)?,
        };
        self.environment.offered = key.parameters();
        Ok(key)
    }

    /// Returns the socket to serve on; `None` for a stage in process.
    fn take_listener(&mut self) -> Result<Option<(TcpListener, SocketAddr)>, StageError> {
        if self.in_process() {
            return Ok(None);
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => listen(0)?,
        };
        let serving = || {
            let address = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            Ok((TcpListener::from_std(listener)?, address))
        };
        serving().map(Some).map_err(|source| StageError::Port { port: 0, source })
    }

    fn in_process(&self) -> bool {
        self.executables.is_none()
    }

    /// Creates the clock, the log, the database with the template's tables, and the template's queues.
    fn backends(&mut self, template: &Template) -> Result<Backends, StageError> {
        let clock: Arc<dyn Clock> = if self.in_process() {
            Arc::new(TokioClock::starting_at(self.starts_at))
        } else {
            Arc::new(SystemClock)
        };
        let entropy = self.entropy.take().unwrap_or_else(|| Arc::new(SystemEntropy::new()));
        let log: Arc<dyn LogSink> = match self.log.take() {
            Some(log) => log,
            None if self.in_process() => Arc::new(TestOutput),
            None => Arc::new(TerminalLog::stderr()),
        };
        let dynamodb = self.database(&clock, &entropy)?;
        tables::create(&dynamodb, &template.tables)?;
        let queues = queues::create(
            &template.queues,
            self.data.as_deref(),
            &self.environment,
            Arc::clone(&clock),
            Arc::clone(&entropy),
        )?
        .with_faults(self.faults.clone());
        let (gateway, functions) = (LateBound::default(), LateBound::default());
        Ok(Backends { clock, entropy, log, dynamodb, queues, gateway, functions })
    }

    fn database(&self, clock: &Arc<dyn Clock>, entropy: &Arc<dyn Entropy>) -> Result<DynamoDb, StageError> {
        let mut dynamodb = DynamoDb::builder()
            .clock(Arc::clone(clock))
            .entropy(Arc::clone(entropy))
            .faults(self.faults.clone())
            .region(&self.environment.region)
            .account_id(&self.environment.account_id)
            .shard_lifetime(self.shard_lifetime);
        if let Some(shards) = self.shards {
            dynamodb = dynamodb.shards_per_stream(shards);
        }
        Ok(match &self.data {
            Some(folder) => dynamodb.open(folder)?,
            None => dynamodb.in_memory()?,
        })
    }

    fn functions(&self, configs: Vec<FunctionConfig>, backends: &Backends) -> Result<Functions, StageError> {
        let options = Options {
            log: Arc::clone(&backends.log),
            clock: Arc::clone(&backends.clock),
            entropy: Arc::clone(&backends.entropy),
            faults: self.faults.clone(),
            destination: Some(Arc::new(backends.queues.clone())),
            ..Options::default()
        };
        Ok(Functions::new(configs, options)?)
    }

    /// Makes the event source mappings of the template and of the builder. `arns` holds the functions' ARNs
    /// by function name.
    fn event_source_mappings(
        &mut self,
        template: &Template,
        backends: &Backends,
        functions: &Functions,
        arns: &BTreeMap<String, String>,
    ) -> Result<Vec<EventSourceMapping>, StageError> {
        let mut sources = Vec::new();
        for mapping in &template.mappings {
            let (settings, source) = stream::of_template(mapping, &backends.dynamodb)?;
            sources.push((settings, source, queues::on_failure(mapping, &template.queues, &backends.queues)));
        }
        for (table, settings) in std::mem::take(&mut self.mappings) {
            let (settings, source) = stream::of(&table, settings, &backends.dynamodb)?;
            sources.push((settings, source, Arc::new(LogFailures) as Arc<dyn OnFailure>));
        }
        let mut mappings = Vec::new();
        for (mut settings, source, on_failure) in sources {
            if settings.function_arn.is_empty() {
                settings.function_arn = arns.get(&settings.function).cloned().unwrap_or_default();
            }
            let ports = Ports {
                source: Arc::new(source),
                invoke: Arc::new(functions.clone()),
                on_failure,
                clock: Arc::clone(&backends.clock),
                entropy: Arc::clone(&backends.entropy),
                faults: self.faults.clone(),
            };
            mappings.push(EventSourceMapping::new(settings, ports)?);
        }
        Ok(mappings)
    }
}

impl Stage {
    /// Serves the gateway and the AWS services on one port, until the stage ends.
    fn serve(&mut self, listener: TcpListener) {
        let app = self.gateway.router().merge(self.dynamodb.router()).merge(self.functions.router());
        let app = self.queues.layered_over(app);
        let stopped = until(&self.stop_serving);
        self.tasks.spawn(async move {
            let service = app.into_make_service_with_connect_info::<SocketAddr>();
            // An error on one connection ends only that connection, so the result carries no information.
            let _ = axum::serve(listener, service).with_graceful_shutdown(stopped).await;
        });
    }

    /// Starts one environment of each function in `names`.
    async fn start_functions(
        &self,
        names: &[String],
        of_template: &[template::Function],
    ) -> Result<(), StageError> {
        let starts = names.iter().map(|name| async move {
            self.functions.probe(name).await.map_err(|error| {
                let of_template = of_template.iter().find(|function| function.name == *name);
                StageError::FunctionDidNotStart {
                    function: of_template.map_or(name, |function| &function.logical_id).clone(),
                    message: error.to_string(),
                }
            })
        });
        try_join_all(starts).await.map(|_| ())
    }

    /// Starts the tasks that poll the streams, run the schedules and delete expired items, until the stage
    /// ends.
    fn poll(
        &mut self,
        mappings: Vec<EventSourceMapping>,
        schedules: Vec<Schedule>,
        entropy: &Arc<dyn Entropy>,
    ) {
        for mapping in mappings {
            self.tasks.spawn(mapping.run(until(&self.stop_polling)));
        }
        for schedule in schedules {
            let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(entropy));
            let stopped = until(&self.stop_polling);
            self.tasks.spawn(schedule.run(self.functions.clone(), clock, entropy, stopped));
        }
        self.tasks.spawn(tables::sweep(self.dynamodb.clone(), TTL_SWEEP, until(&self.stop_polling)));
    }
}

/// Returns the environment variables through which the functions' AWS SDKs find the stage.
fn endpoints(address: Option<SocketAddr>, stage_name: &str) -> BTreeMap<String, String> {
    let root = format!("http://{}", host(address));
    BTreeMap::from([
        ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI".to_owned(), format!("{root}/{stage_name}")),
        ("AWS_ENDPOINT_URL_SQS".to_owned(), root.clone()),
        ("AWS_ENDPOINT_URL_LAMBDA".to_owned(), root.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), root),
    ])
}

/// Returns the names of the functions to start. A function with a reserved concurrency of zero never runs, as
/// on AWS.
fn expected_to_start(configs: &[FunctionConfig]) -> Vec<String> {
    let running = configs.iter().filter(|config| config.reserved_concurrency != Some(0));
    running.map(|config| config.name.clone()).collect()
}

/// Writes log lines to standard error with `eprintln`, which the test runner captures.
#[derive(Debug)]
struct TestOutput;

impl LogSink for TestOutput {
    fn line(&self, function: &str, line: &str) {
        eprintln!("{function:<10} | {line}");
    }
}

fn until(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stop.subscribe();
    async move {
        // If the stage was dropped, the sender no longer exists, and `wait_for` fails. The future completes
        // in that case too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
