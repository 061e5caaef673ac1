//! The functions of a stage and the environments that run them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::{ConfigError, FunctionConfig, check};
use super::environment::{Environment, Readiness, exited};
use super::identifiers::trace_id;
use super::log::{LogSink, TerminalLog};
use super::process::Lifetimes;
use super::runtime_api::Event;
use super::{Invocation, Invoke, InvokeError};
use crate::aws_forms::uuid;
use crate::faults::{Caller, Effect, Effects, Faults, Occasion, Service};

/// The most that the payload of a synchronous invocation may hold: 6 MiB.
const MAX_PAYLOAD_BYTES: usize = 6_291_456;

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
    /// What goes wrong on request with invocations.
    pub faults: Faults,
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
            faults: Faults::default(),
        }
    }
}

/// The functions of a stage, run as processes or in this one when they are invoked.
///
/// Must be used within a tokio runtime. Environments are killed when the last clone is dropped;
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
    callers: Callers,
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
            let (idle, callers) = (Mutex::default(), Callers::default());
            (config.name.clone(), Arc::new(Function { config, concurrency, idle, callers }))
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

    /// Kills every environment of `function` now, as SIGKILL does, and says how many there were.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn kill(&self, function: &str) -> Result<usize, InvokeError> {
        let function = self.0.function(function)?;
        let killed = function.callers.kill();
        function.idle().clear();
        Ok(killed)
    }

    /// Ends all processes (SIGTERM, and SIGKILL for those that are still there after the time given for it)
    /// and what runs in this one, and returns when nothing is left. Invocations are throttled from now on.
    pub async fn shutdown(&self) {
        self.0.lifetimes.close().await;
        for function in self.0.functions.values() {
            function.idle().clear();
        }
    }
}

impl Invoke for Functions {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a> {
        self.invoke_as(function, uuid(&*self.0.options.entropy), payload)
    }

    fn invoke_as<'a>(&'a self, function: &'a str, request_id: String, payload: Bytes) -> Invocation<'a> {
        Box::pin(Arc::clone(&self.0).requested(function, request_id, payload))
    }
}

impl Inner {
    fn function(&self, name: &str) -> Result<&Arc<Function>, InvokeError> {
        self.functions.get(name).ok_or_else(|| InvokeError::NotFound(name.to_owned()))
    }

    /// One invocation with what is to go wrong with it.
    async fn requested(
        self: Arc<Self>,
        name: &str,
        request_id: String,
        payload: Bytes,
    ) -> Result<Bytes, InvokeError> {
        self.function(name)?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge(MAX_PAYLOAD_BYTES));
        }
        let resources: &[&str] = &[name];
        let (service, operation) = (Service::Lambda, "Invoke");
        let occasion = Occasion { service, operation, resources, index: None, caller: None };
        let Effects { delay, effect } = self.options.faults.strike(&occasion);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match effect {
            Some(Effect::Throttle) => return Err(InvokeError::Throttled),
            Some(Effect::Fail) => {
                return Err(exited(&request_id, "Runtime exited with error: exit status 1"));
            }
            _ => {}
        }
        let (function, permit) = self.admit(name)?;
        let doomed = effect == Some(Effect::Kill);
        // A task of its own: as on AWS, the function runs on when its caller goes away, and the
        // environment finds its way back.
        let invocation = tokio::spawn(async move {
            let _permit = permit;
            self.invoke(&function, request_id, payload, doomed).await
        });
        let reply =
            invocation.await.unwrap_or_else(|error| Err(failed("Sandbox.Failure", error.to_string())));
        match effect {
            Some(Effect::FailAfterApply) => Err(InvokeError::Service),
            Some(Effect::LoseAnswer) => std::future::pending().await,
            _ => reply,
        }
    }

    fn admit(&self, name: &str) -> Result<(Arc<Function>, OwnedSemaphorePermit), InvokeError> {
        let function = self.function(name)?;
        if self.lifetimes.is_closing() {
            return Err(InvokeError::Throttled);
        }
        let permit = Arc::clone(&function.concurrency).try_acquire_owned();
        Ok((Arc::clone(function), permit.map_err(|_| InvokeError::Throttled)?))
    }

    async fn invoke(
        &self,
        function: &Function,
        request_id: String,
        payload: Bytes,
        doomed: bool,
    ) -> Result<Bytes, InvokeError> {
        let Options { clock, entropy, .. } = &self.options;
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
        match environment.invoke(event, timeout, doomed).await {
            Ok(reply) => {
                function.release(environment);
                reply
            }
            Err(error) => {
                environment.end().await;
                Err(error)
            }
        }
    }

    /// The most recently used environment that is ready, or a new one.
    async fn environment(&self, function: &Function, request_id: &str) -> Result<Environment, InvokeError> {
        let mut busy = Vec::new();
        let mut found = None;
        while let Some(mut environment) = function.take() {
            match environment.readiness().await {
                Readiness::Ready => {
                    found = Some(environment);
                    break;
                }
                Readiness::Busy => busy.push(environment),
                Readiness::Gone => drop(environment),
            }
        }
        function.idle().splice(..0, busy);
        match found {
            Some(environment) => Ok(environment),
            None => {
                let caller = function.callers.enlist(&function.config.name);
                Environment::start(caller, &function.config, &self.options, &self.lifetimes, request_id).await
            }
        }
    }
}

impl Function {
    /// The list is whole between any two statements here, so a panic elsewhere does not spoil it.
    fn idle(&self) -> MutexGuard<'_, Vec<Environment>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Environment> {
        self.idle().pop()
    }

    fn release(&self, environment: Environment) {
        self.idle().push(environment);
    }
}

/// The environments of a function that are there, to be killed.
#[derive(Clone, Debug, Default)]
struct Callers(Arc<Mutex<BTreeMap<u64, Caller>>>);

impl Callers {
    fn enlist(&self, function: &str) -> Enlisted {
        let caller = Caller::new(function);
        let mut callers = self.lock();
        let id = callers.last_key_value().map_or(0, |(last, _)| last + 1);
        callers.insert(id, caller.clone());
        Enlisted { id, caller, callers: self.clone() }
    }

    fn kill(&self) -> usize {
        let callers = self.lock();
        callers.values().for_each(Caller::kill);
        callers.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An environment that is there until this is dropped.
#[derive(Debug)]
pub(super) struct Enlisted {
    id: u64,
    caller: Caller,
    callers: Callers,
}

impl Enlisted {
    pub(super) const fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.callers.lock().remove(&self.id);
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits))
}

pub(super) fn failed(error_type: &str, message: String) -> InvokeError {
    InvokeError::Function { error_type: error_type.to_owned(), message }
}
