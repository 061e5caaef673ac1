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
use streamer_fakes::gateway::{ApiConfig, Limits, Route, Unconfirmed};
use streamer_fakes::lambda::{FunctionConfig, InProcess, LogSink};

/// The stage of Streamer's own functions, for whoever brings an app and no template.
const STREAMER_TEMPLATE: &str = include_str!("streamer.yaml");

/// What a stage is made from, and how: begin with [`Stage::builder`], end with [`start`](Self::start).
///
/// A stage with [executables](Self::executables) runs them as processes and serves on a port, on the machine's clock. Any
/// other runs within this process alone, on tokio's clock: where that is paused, a test decides how time passes.
#[derive(Debug)]
#[must_use = "a stage is there once it is started"]
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
    pub(super) unconfirmed: Option<Unconfirmed>,
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
    /// What a stage is to be made from.
    pub fn builder() -> StageBuilder {
        StageBuilder::new()
    }
}

impl StageBuilder {
    /// When the clock of a stage in process starts: 2023-11-14, 22:13:20 UTC.
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

    /// The SAM template. Default: none; with an [app](Self::app), one of Streamer's own functions.
    pub fn template(mut self, path: impl Into<PathBuf>) -> Self {
        self.template = Some(path.into());
        self
    }

    /// Runs Streamer's functions in this process, with the handlers of `app`: each function of the template that is built
    /// from a binary `connect`, `disconnect`, `router`, `processor`, `worker` or `sweeper`, with the environment variables that it has
    /// there.
    ///
    /// All environments share this one app, and what its layers remember.
    pub fn app(mut self, app: App) -> Self {
        self.apps = Some(Apps::Shared(Arc::new(app)));
        self
    }

    /// As [`app`](Self::app), with an app for each environment, as on AWS: for layers that remember, such as rate limits.
    pub fn app_of_each(self, app: impl Fn() -> App + Send + Sync + 'static) -> Self {
        self.app_with(move |_| app())
    }

    /// As [`app_of_each`](Self::app_of_each), for handlers that call AWS themselves: with a client that is configured with
    /// [`Services::http_client`], any credentials and any region they reach the stage's own services.
    pub fn app_with(mut self, app: impl Fn(&Services) -> App + Send + Sync + 'static) -> Self {
        self.apps = Some(Apps::Each(Arc::new(app)));
        self
    }

    /// Runs the template's functions as processes, and serves on a port.
    pub fn executables(mut self, executables: Executables) -> Self {
        self.executables = Some(executables);
        self
    }

    /// Where to listen, if the functions are processes. Default: a free port of the loopback interface.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Runs a function in this process: the template's of this binary or logical id, otherwise one more, of this name and with
    /// Lambda's default settings. [`function_fn`](super::function_fn) makes one of a closure.
    pub fn function(self, name: impl Into<String>, code: Arc<dyn InProcess>) -> Self {
        self.function_with(FunctionConfig::in_process(name, code))
    }

    /// As [`function`](Self::function), with settings of its own. A template's function keeps those of the template.
    pub fn function_with(mut self, function: FunctionConfig) -> Self {
        self.functions.push(function);
        self
    }

    /// Adds a table.
    pub fn table(mut self, name: impl Into<String>, layout: Layout) -> Self {
        let name = name.into();
        self.tables.push(Table { logical_id: name.clone(), name, layout, beyond_layout: Vec::new() });
        self
    }

    /// Adds a route of the WebSocket API, instead of the template's of the same key.
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Has a function called for the stream of a table; where its ARN is empty, it is that of the function.
    pub fn mapping(mut self, table: impl Into<String>, settings: Settings) -> Self {
        self.mappings.push((table.into(), settings));
        self
    }

    /// The quotas and timeouts of the WebSocket API. Default: AWS's.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// What the gateway does where no source settles what AWS does.
    pub fn unconfirmed(mut self, unconfirmed: Unconfirmed) -> Self {
        self.unconfirmed = Some(unconfirmed);
        self
    }

    /// The folder to keep the tables and streams in. Default none: in memory.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// A value for a parameter of the template. `JwtAlgorithm` and `JwtKey`, if it has them, are those of the signing key
    /// unless they are given here.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.parameters.insert(name.into(), value.into());
        self
    }

    /// An environment variable of every function, which goes before the template's.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The key that tokens are signed with. Default: a new one.
    pub fn signing_key(mut self, key: SigningKey) -> Self {
        self.signing_key = Some(key);
        self
    }

    /// Where the functions' output goes. Default: standard error, which of a test in process is shown if it fails.
    pub fn log(mut self, log: Arc<dyn LogSink>) -> Self {
        self.log = Some(log);
        self
    }

    /// When the clock of a stage in process starts. Default: 2023-11-14, 22:13:20 UTC.
    pub fn starts_at(mut self, moment: Timestamp) -> Self {
        self.starts_at = moment;
        self
    }

    /// Where the stage's ids and its handlers' chances come from. Default: the operating system.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// How many shards each stream has. Default: 4.
    pub fn shards_per_stream(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// How long a shard takes records before it is closed and has a child. Default: for ever; on AWS about four hours.
    pub fn shard_lifetime(mut self, lifetime: Duration) -> Self {
        self.shard_lifetime = Some(lifetime);
        self
    }

    /// How many invocations of a function, named by its binary, may run at once, instead of the template's
    /// `ReservedConcurrentExecutions`.
    pub fn concurrency(mut self, function: impl Into<String>, reserved: u32) -> Self {
        self.concurrency.insert(function.into(), reserved);
        self
    }

    /// The region. Default `us-east-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.environment.region = region.into();
        self
    }

    /// The stack's name, which the names of the template's tables and functions begin with. Default `streamer`.
    pub fn stack_name(mut self, name: impl Into<String>) -> Self {
        self.environment.stack_name = name.into();
        self
    }

    /// Faults that hold while the stage starts already. Default: none; [`Stage::faults`] adds some later.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The template; where there is none, one of nothing.
    pub(super) fn read_template(&self) -> Result<Template, StageError> {
        if self.apps.is_some() && self.executables.is_some() {
            return Err(StageError::Contradiction(
                "a stage of executables runs their apps: leave out either .app(…) or .executables(…)"
                    .to_owned(),
            ));
        }
        if self.listener.is_some() && self.executables.is_none() {
            return Err(StageError::Contradiction(
                "a stage in process does not listen: leave out .listener(…), or add .executables(…)"
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

    /// The functions of the template and those beyond it, with what `endpoints` adds to their environment.
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
        let beyond = self.functions.iter().filter(|given| !of_template.iter().any(|one| names(one, given)));
        configs.extend(beyond.cloned().map(|mut config| {
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
        let code = code.ok_or_else(|| StageError::NoCode {
            function: function.logical_id.clone(),
            binary: function.binary.clone(),
        })?;
        Ok(FunctionConfig::in_process(&function.name, code))
    }

    /// The WebSocket API as the template has it, with what is given beyond it.
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
