use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use streamer::app::App;
use streamer::ports::{Entropy, Timestamp};

use super::streamer_function::{Apps, Backends, Services, code_of};
use super::{Executables, Stage, StageError};
use crate::signing_key::SigningKey;
use crate::tables::Layout;
use crate::template::{Environment, Function, Table, Template, WebSocketApi};
use streamer_fakes::event_source::Settings;
use streamer_fakes::faults::Faults;
use streamer_fakes::gateway::{ApiConfig, Limits, Route, UndocumentedBehavior};
use streamer_fakes::lambda::{FunctionConfig, InProcess, LogSink};

/// The template of Streamer's own functions, for a stage that has an app and no template.
const STREAMER_TEMPLATE: &str = include_str!("streamer.yaml");

/// Builds a [`Stage`]: begin with [`Stage::builder`], end with [`start`](Self::start).
///
/// A stage with [executables](Self::executables) runs its functions as processes, serves on a port and
/// follows the machine's clock. Without executables, the stage runs in this process and follows tokio's
/// clock: a test that pauses that clock decides how time passes.
#[derive(Debug)]
#[must_use = "a builder does nothing until start is called"]
pub struct StageBuilder {
    pub(super) template: Option<PathBuf>,
    pub(super) apps: Option<Apps>,
    pub(super) executables: Option<Executables>,
    pub(super) listener: Option<TcpListener>,
    pub(super) functions: Vec<FunctionConfig>,
    pub(super) tables: Vec<Table>,
    pub(super) routes: Vec<Route>,
    pub(super) mappings: Vec<(String, Settings)>,
    pub(super) limits: Option<Limits>,
    pub(super) unconfirmed: Option<UndocumentedBehavior>,
    pub(super) data: Option<PathBuf>,
    pub(super) signing_key: Option<SigningKey>,
    pub(super) log: Option<Arc<dyn LogSink>>,
    pub(super) starts_at: Timestamp,
    pub(super) entropy: Option<Arc<dyn Entropy>>,
    pub(super) shards: Option<u16>,
    pub(super) shard_lifetime: Option<Duration>,
    pub(super) concurrency: BTreeMap<String, u32>,
    pub(super) faults: Faults,
    pub(super) environment: Environment,
    pub(super) variables: BTreeMap<String, String>,
}

impl Stage {
    /// Returns a builder for a stage.
    pub fn builder() -> StageBuilder {
        StageBuilder::new()
    }
}

impl StageBuilder {
    /// Default start time of the clock of a stage in process: 2023-11-14, 22:13:20 UTC.
    pub const STARTS_AT: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn new() -> Self {
        Self {
            template: None,
            apps: None,
            executables: None,
            listener: None,
            functions: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
            mappings: Vec::new(),
            limits: None,
            unconfirmed: None,
            data: None,
            signing_key: None,
            log: None,
            starts_at: Self::STARTS_AT,
            entropy: None,
            shards: None,
            shard_lifetime: None,
            concurrency: BTreeMap::new(),
            faults: Faults::default(),
            environment: Environment::default(),
            variables: BTreeMap::new(),
        }
    }

    /// Sets the path of the SAM template. Default: a built-in template of Streamer's own functions if the
    /// stage has an [app](Self::app), otherwise no template.
    pub fn template(mut self, path: impl Into<PathBuf>) -> Self {
        self.template = Some(path.into());
        self
    }

    /// Runs Streamer's functions in this process, with the handlers of `app`.
    ///
    /// Streamer's functions are those that the template builds from a binary `connect`, `disconnect`,
    /// `router`, `processor`, `worker` or `sweeper`. Each gets the environment variables that the template
    /// sets for it.
    ///
    /// All environments of all functions share this one app, and therefore the state of its layers.
    pub fn app(mut self, app: App) -> Self {
        self.apps = Some(Apps::Shared(Arc::new(app)));
        self
    }

    /// Runs Streamer's functions in this process, with a new app from `app` in each environment of a
    /// function, as on AWS. Use this method if a layer keeps state, such as a rate limit.
    ///
    /// In all other respects, this method works like [`app`](Self::app).
    pub fn app_per_environment(self, app: impl Fn() -> App + Send + Sync + 'static) -> Self {
        self.app_with_services(move |_| app())
    }

    /// Runs Streamer's functions in this process, with handlers that call AWS. `app` makes a new app in each
    /// environment of a function.
    ///
    /// An AWS SDK client in a handler reaches the stage's own services if it is configured with
    /// [`Services::http_client`], any credentials and any region.
    pub fn app_with_services(mut self, app: impl Fn(&Services) -> App + Send + Sync + 'static) -> Self {
        self.apps = Some(Apps::Each(Arc::new(app)));
        self
    }

    /// Runs the template's functions as processes from these executables, and serves the stage on a port.
    pub fn executables(mut self, executables: Executables) -> Self {
        self.executables = Some(executables);
        self
    }

    /// Sets the socket on which a stage with executables listens. Default: a free port of the loopback
    /// interface.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Runs `code` as a function in this process.
    ///
    /// If the template has a function whose binary, logical id or name is `name`, `code` takes the place of
    /// that function's code. Otherwise the stage gets an additional function called `name`, with Lambda's
    /// default settings. [`function_fn`](super::function_fn) makes `code` from a closure.
    pub fn function(self, name: impl Into<String>, code: Arc<dyn InProcess>) -> Self {
        self.function_with(FunctionConfig::in_process(name, code))
    }

    /// Runs a function in this process, as [`function`](Self::function) does, with the settings of an
    /// additional function. A function of the template keeps the template's settings.
    pub fn function_with(mut self, function: FunctionConfig) -> Self {
        self.functions.push(function);
        self
    }

    /// Adds a table with this name and layout.
    pub fn table(mut self, name: impl Into<String>, layout: Layout) -> Self {
        let name = name.into();
        self.tables.push(Table {
            logical_id: name.clone(),
            name,
            layout,
            properties_not_in_layout: Vec::new(),
        });
        self
    }

    /// Adds a route to the WebSocket API. This route replaces a route of the template that has the same key.
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds an event source mapping: the function in `settings` is invoked with the records of the stream of
    /// `table`. If the function's ARN in `settings` is empty, the stage fills it in.
    pub fn mapping(mut self, table: impl Into<String>, settings: Settings) -> Self {
        self.mappings.push((table.into(), settings));
        self
    }

    /// Sets the quotas and timeouts of the WebSocket API. Default: those of AWS.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the gateway's behavior in each case that AWS does not document. Default: the likelier behavior in
    /// each case.
    pub fn unconfirmed(mut self, unconfirmed: UndocumentedBehavior) -> Self {
        self.unconfirmed = Some(unconfirmed);
        self
    }

    /// Sets the folder that stores the tables, streams and queues. Default: no folder; all data stay in
    /// memory.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// Sets a parameter of the template. Default for the parameters `JwtAlgorithm` and `JwtKey`, if the
    /// template has them: the values of the signing key.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.parameters.insert(name.into(), value.into());
        self
    }

    /// Sets an environment variable of every function. It overrides a variable of the same name in the
    /// template.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the key pair that signs tokens for clients. Default: a new random key pair.
    pub fn signing_key(mut self, key: SigningKey) -> Self {
        self.signing_key = Some(key);
        self
    }

    /// Sets the destination of the functions' log lines. Default: standard error. For a stage in process, the
    /// test runner captures these lines, and shows them if the test fails.
    pub fn log(mut self, log: Arc<dyn LogSink>) -> Self {
        self.log = Some(log);
        self
    }

    /// Sets the start time of the clock of a stage in process. Default: 2023-11-14, 22:13:20 UTC.
    pub fn starts_at(mut self, moment: Timestamp) -> Self {
        self.starts_at = moment;
        self
    }

    /// Sets the source of randomness for the stage's ids and for the functions that run in process. Default:
    /// the operating system.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Sets the number of open shards of each new stream. Default: 4.
    pub fn shards_per_stream(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets the time after which a shard is closed and a child shard takes its place. Default: no limit. On
    /// AWS, a shard is closed after about four hours.
    pub fn shard_lifetime(mut self, lifetime: Duration) -> Self {
        self.shard_lifetime = Some(lifetime);
        self
    }

    /// Sets the maximum number of concurrent invocations of the function that is built from the binary
    /// `function`. Overrides `ReservedConcurrentExecutions` in the template.
    pub fn concurrency(mut self, function: impl Into<String>, reserved: u32) -> Self {
        self.concurrency.insert(function.into(), reserved);
        self
    }

    /// Sets the AWS region. Default: `us-east-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.environment.region = region.into();
        self
    }

    /// Sets the stack's name, with which the generated names of tables, queues and functions begin. Default:
    /// `streamer`.
    pub fn stack_name(mut self, name: impl Into<String>) -> Self {
        self.environment.stack_name = name.into();
        self
    }

    /// Sets the faults that are already active while the stage starts. Default: none. [`Stage::faults`] adds
    /// faults to a running stage.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Reads the template. Without a template and without an app, the result is empty.
    pub(super) fn read_template(&self) -> Result<Template, StageError> {
        if self.apps.is_some() && self.executables.is_some() {
            return Err(StageError::Contradiction(
                "executables already contain an app; remove either .app(…) or .executables(…)".to_owned(),
            ));
        }
        if self.listener.is_some() && self.executables.is_none() {
            return Err(StageError::Contradiction(
                "a stage in process does not listen on a port; remove .listener(…), or add .executables(…)"
                    .to_owned(),
            ));
        }
        let template = match (&self.template, &self.apps) {
            (Some(path), _) => Template::load(path, &self.environment)?,
            (None, Some(_)) => Template::parse(STREAMER_TEMPLATE, Path::new(""), &self.environment)?,
            (None, None) => {
                return Ok(Template {
                    functions: Vec::new(),
                    tables: Vec::new(),
                    queues: Vec::new(),
                    api: None,
                    mappings: Vec::new(),
                    schedules: Vec::new(),
                    findings: Vec::new(),
                });
            }
        };
        match (&self.template, &template.api) {
            (Some(path), None) if self.routes.is_empty() => Err(StageError::NoApi(path.clone())),
            _ => Ok(template),
        }
    }

    /// Returns the settings of the template's functions and of the additional functions. The variables in
    /// `endpoints` are added to each function's environment.
    pub(super) fn function_configs(
        &self,
        of_template: &[Function],
        backends: &Backends,
        endpoints: &BTreeMap<String, String>,
    ) -> Result<Vec<FunctionConfig>, StageError> {
        let names = |function: &Function, given: &FunctionConfig| {
            [&function.binary, &function.logical_id, &function.name].contains(&&given.name)
        };
        let mut configs = Vec::new();
        for function in of_template {
            let given = self.functions.iter().rev().find(|given| names(function, given));
            let mut environment = function.environment.clone();
            environment.extend(endpoints.clone());
            environment.extend(self.variables.clone());
            let code = match given {
                Some(given) => given.clone(),
                None => self.code(function, backends)?,
            };
            configs.push(FunctionConfig {
                name: function.name.clone(),
                handler: function.handler.clone(),
                environment,
                timeout: function.timeout,
                memory_mib: function.memory_mib,
                reserved_concurrency: self
                    .concurrency
                    .get(&function.binary)
                    .copied()
                    .or(function.reserved_concurrency),
                recursive_loop: function.recursive_loop,
                asynchronous: function.asynchronous.clone(),
                ..code
            });
        }
        let additional =
            self.functions.iter().filter(|given| !of_template.iter().any(|one| names(one, given)));
        configs.extend(additional.cloned().map(|mut config| {
            for (name, value) in endpoints {
                config.environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
            config.environment.extend(self.variables.clone());
            config
        }));
        for config in &mut configs {
            config.region.clone_from(&self.environment.region);
            config.account_id.clone_from(&self.environment.account_id);
        }
        Ok(configs)
    }

    fn code(&self, function: &Function, backends: &Backends) -> Result<FunctionConfig, StageError> {
        if let Some(executables) = &self.executables {
            return Ok(FunctionConfig::new(&function.name, executables.path(&function.binary)?));
        }
        let code = self.apps.as_ref().and_then(|apps| code_of(&function.binary, apps, backends));
        let code = code.ok_or_else(|| StageError::MissingCode {
            function: function.logical_id.clone(),
            binary: function.binary.clone(),
        })?;
        Ok(FunctionConfig::in_process(&function.name, code))
    }

    /// Returns the settings of the WebSocket API: those of the template, and the routes, limits and options
    /// of this builder.
    pub(super) fn api_config(&self, api: Option<WebSocketApi>) -> ApiConfig {
        let id = api.as_ref().map_or("streamer00", |api| &api.api_id);
        let mut config =
            ApiConfig::new(id, format!("{id}.execute-api.{}.amazonaws.com", self.environment.region));
        config.region.clone_from(&self.environment.region);
        config.account_id.clone_from(&self.environment.account_id);
        if let Some(api) = api {
            config.stage = api.stage_name;
            config.route_selection_expression = api.route_selection_expression;
            let routes = api.routes.into_iter().map(|route| {
                let made = if route.route_response { Route::two_way } else { Route::one_way };
                let mut made = made(route.key, route.function).integration_timeout(route.integration_timeout);
                (made.authorizer, made.throttle) = (route.authorizer, route.throttle);
                made
            });
            config.routes =
                routes.filter(|route| !self.routes.iter().any(|given| given.key == route.key)).collect();
        }
        config.routes.extend(self.routes.iter().cloned());
        if let Some(limits) = &self.limits {
            config.limits = limits.clone();
        }
        if let Some(unconfirmed) = &self.unconfirmed {
            config.unconfirmed = unconfirmed.clone();
        }
        config
    }
}
