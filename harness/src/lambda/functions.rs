//! The functions of a stage and the environments that run them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::{ConfigError, FunctionConfig, check};
use super::environment::{Environment, Readiness};
use super::identifiers::trace_id;
use super::log::{LogSink, TerminalLog};
use super::process::Lifetimes;
use super::runtime_api::Event;
use super::{Invocation, Invoke, InvokeError};
use crate::aws_forms::uuid;

/// How functions are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a process may take until it asks for its first event (default 10 s, as on AWS).
    pub init_timeout: Duration,
    /// How long a process has between SIGTERM and SIGKILL at the end (default 2 s, as on AWS).
    pub shutdown: Duration,
    /// How many invocations may run at once in all (default 1,000, an account's default quota). What
    /// functions reserve is taken from it.
    pub account_concurrency: u32,
    /// Where the functions' lines go (default: standard error).
    pub log: Arc<dyn LogSink>,
    /// What deadlines are reckoned by.
    pub clock: Arc<dyn Clock>,
    /// Where request ids come from.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            init_timeout: Duration::from_secs(10),
            shutdown: Duration::from_secs(2),
            account_concurrency: 1_000,
            log: Arc::new(TerminalLog::stderr()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }
}

/// Function binaries, run as processes when they are invoked.
///
/// Must be used within a tokio runtime. Processes are killed when the last clone is dropped;
/// [`Functions::shutdown`] lets them end in order.
#[derive(Clone, Debug)]
pub struct Functions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    functions: BTreeMap<String, Arc<Function>>,
    options: Options,
    lifetimes: Lifetimes,
}

#[derive(Debug)]
struct Function {
    config: FunctionConfig,
    /// One permit for each invocation that may run: its own if it reserves concurrency, else the account's.
    concurrency: Arc<Semaphore>,
    /// Environments that have answered; the most recently used is last.
    idle: Mutex<Vec<Environment>>,
}

impl Functions {
    /// The functions of a stage. Nothing is started yet.
    ///
    /// # Errors
    /// When a function cannot run as it is configured; the error lists everything that is wrong.
    pub fn new(configs: Vec<FunctionConfig>, options: Options) -> Result<Self, ConfigError> {
        check(&configs, options.account_concurrency)?;
        let reserved: u32 = configs.iter().filter_map(|config| config.reserved_concurrency).sum();
        let unreserved = semaphore(options.account_concurrency - reserved);
        let functions = configs.into_iter().map(|config| {
            let concurrency = config.reserved_concurrency.map_or_else(|| Arc::clone(&unreserved), semaphore);
            (config.name.clone(), Arc::new(Function { config, concurrency, idle: Mutex::default() }))
        });
        let lifetimes = Lifetimes::new(options.shutdown);
        Ok(Self(Arc::new(Inner { functions: functions.collect(), options, lifetimes })))
    }

    /// Starts an environment of `function`, unless one stands ready, and waits until it asks for an event.
    ///
    /// # Errors
    /// As an invocation would fail. The message of a process that dies ends with the last lines that it
    /// wrote to its standard error.
    pub async fn probe(&self, function: &str) -> Result<(), InvokeError> {
        let (function, _permit) = self.0.admit(function)?;
        let environment = self.0.environment(&function, &uuid(&*self.0.options.entropy)).await?;
        function.release(environment);
        Ok(())
    }

    /// Ends all processes (SIGTERM, and SIGKILL for those that are still there after the time given for it)
    /// and returns when none is left. Invocations are throttled from now on.
    pub async fn shutdown(&self) {
        self.0.lifetimes.close().await;
    }
}

impl Invoke for Functions {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (function, permit) = inner.admit(function)?;
            // A task of its own: as on AWS, the function runs on when its caller goes away, and the
            // environment finds its way back.
            let invocation = tokio::spawn(async move {
                let _permit = permit;
                inner.invoke(&function, payload).await
            });
            invocation.await.unwrap_or_else(|error| Err(failed("Sandbox.Failure", error.to_string())))
        })
    }
}

impl Inner {
    fn admit(&self, name: &str) -> Result<(Arc<Function>, OwnedSemaphorePermit), InvokeError> {
        let function = self.functions.get(name).ok_or_else(|| InvokeError::NotFound(name.to_owned()))?;
        if self.lifetimes.is_closing() {
            return Err(InvokeError::Throttled);
        }
        let permit = Arc::clone(&function.concurrency).try_acquire_owned();
        Ok((Arc::clone(function), permit.map_err(|_| InvokeError::Throttled)?))
    }

    async fn invoke(&self, function: &Function, payload: Bytes) -> Result<Bytes, InvokeError> {
        let Options { clock, entropy, .. } = &self.options;
        let request_id = uuid(&**entropy);
        let mut environment = self.environment(function, &request_id).await?;
        let timeout = function.config.timeout;
        let now = clock.now();
        let event = Event {
            request_id,
            trace_id: trace_id(&**entropy, now),
            deadline_ms: (now + timeout).as_millis(),
            function_arn: function.config.arn(),
            payload,
        };
        match environment.invoke(event, timeout).await {
            Ok(reply) => {
                function.release(environment);
                reply
            }
            Err(error) => {
                environment.kill().await;
                Err(error)
            }
        }
    }

    /// The most recently used environment that is ready, or a new one.
    async fn environment(&self, function: &Function, request_id: &str) -> Result<Environment, InvokeError> {
        let mut busy = Vec::new();
        let mut found = None;
        while let Some(environment) = function.take() {
            match environment.readiness().await {
                Readiness::Ready => {
                    found = Some(environment);
                    break;
                }
                Readiness::Busy => busy.push(environment),
                Readiness::Gone => drop(environment),
            }
        }
        function.idle.lock().unwrap_or_else(PoisonError::into_inner).splice(..0, busy);
        match found {
            Some(environment) => Ok(environment),
            None => Environment::start(&function.config, &self.options, &self.lifetimes, request_id).await,
        }
    }
}

impl Function {
    fn take(&self) -> Option<Environment> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn release(&self, environment: Environment) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(environment);
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits))
}

pub(super) fn failed(error_type: &str, message: String) -> InvokeError {
    InvokeError::Function { error_type: error_type.to_owned(), message }
}
