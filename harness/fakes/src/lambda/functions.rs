//! The functions of a stage and the environments that run them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::config::{Code, ConfigError, FunctionConfig, check};
use super::environment::{Environment, Readiness};
use super::function::{Function, semaphore};
use super::identifiers::trace_id;
use super::invoke::{Invocation, Invoke, InvokeError};
use super::lineage;
use super::options::Options;
use super::process::{Alive, Lifetimes};
use super::runtime_api::Event;
use crate::aws_format::uuid;
use crate::faults::{CallContext, Caller, Effect, Effects, MidwayFault, Service, Skew};
use crate::observe::Observation;

/// Maximum payload of a synchronous invocation in bytes: 6 MiB.
pub(super) const MAX_PAYLOAD_BYTES: usize = 6_291_456;

/// If a fault loses the answer to a call, the call fails this long after the function's timeout.
const LOST_ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// The functions of a stage, each of which runs as processes or in this process.
///
/// Must be used within a tokio runtime. Dropping the last clone kills all environments;
/// [`Functions::shutdown`] gives processes time to exit.
#[derive(Clone, Debug)]
pub struct Functions(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    functions: BTreeMap<String, Arc<Function>>,
    pub(super) options: Options,
    pub(super) lifetimes: Lifetimes,
    /// Number of environments started so far.
    started: AtomicU64,
    /// Version of the functions' code: 1, plus 1 per deploy.
    version: AtomicU32,
}

impl Drop for Inner {
    /// Ends the tasks of queued asynchronous invocations, which would keep their functions' environments alive.
    fn drop(&mut self) {
        self.lifetimes.begin_to_close();
    }
}

/// Guards that an invocation holds until the invocation ends: its concurrency permit, and the count of
/// invocations that a shutdown waits for.
#[derive(Debug)]
struct Admitted {
    _permit: OwnedSemaphorePermit,
    _alive: Alive,
}

impl Functions {
    /// Returns the functions of a stage, without starting an environment.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration of a function is invalid; the error lists all problems.
    pub fn new(configs: Vec<FunctionConfig>, options: Options) -> Result<Self, ConfigError> {
        check(&configs, options.account_concurrency)?;
        let reserved: u32 = configs.iter().filter_map(|config| config.reserved_concurrency).sum();
        let unreserved = semaphore(options.account_concurrency - reserved);
        let functions = configs
            .into_iter()
            .map(|config| (config.name.clone(), Arc::new(Function::new(config, &unreserved))));
        let lifetimes = Lifetimes::new(options.shutdown);
        let (started, version) = (AtomicU64::new(0), AtomicU32::new(1));
        Ok(Self(Arc::new(Inner { functions: functions.collect(), options, lifetimes, started, version })))
    }

    /// Starts an environment of `function`, unless an idle environment is ready, and waits until the
    /// environment asks for an event.
    ///
    /// # Errors
    /// [`InvokeError`] if the function does not exist, is throttled, or fails to start. If the process exits,
    /// the message ends with the last lines of the process's standard error.
    pub async fn probe(&self, function: &str) -> Result<(), InvokeError> {
        let (function, _admitted) = self.0.admit(function)?;
        let environment = self.0.environment(&function, &uuid(&*self.options().entropy)).await?;
        self.0.return_to_idle(&function, environment).await;
        Ok(())
    }

    /// Kills all environments of `function` immediately, as SIGKILL does, and returns their number.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`] if the stage has no such function.
    pub fn kill(&self, function: &str) -> Result<usize, InvokeError> {
        let function = self.0.function(function)?;
        let killed = function.registry.kill();
        function.idle().environments.clear();
        Ok(killed)
    }

    /// Deploys the next version of every function, and returns the version number.
    ///
    /// Idle environments end immediately. Busy environments end when they have answered their event.
    pub fn deploy(&self) -> u32 {
        let version = self.0.version.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.renew(|_| true);
        version
    }

    /// Ends every environment whose clock differs from the stage's clock.
    ///
    /// Idle environments end immediately. Busy environments end when they have answered their event.
    #[doc(hidden)]
    pub fn replace_skewed(&self) {
        self.renew(|caller| caller.skew() != Skew::default());
    }

    fn renew(&self, which: impl Fn(&Caller) -> bool) {
        for function in self.0.functions.values() {
            function.registry.outdate(&which);
            function.idle().environments.retain(|(environment, _)| !environment.is_outdated());
        }
    }

    /// Thaws all frozen environments, so that they continue to run.
    #[doc(hidden)]
    pub fn thaw(&self) {
        for function in self.0.functions.values() {
            function.registry.thaw();
        }
    }

    /// Returns the number of environments of `function`, idle and busy.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`] if the stage has no such function.
    pub fn environments(&self, function: &str) -> Result<usize, InvokeError> {
        Ok(self.0.function(function)?.registry.len())
    }

    /// Ends all environments, and waits until no environment is left. Later invocations are throttled.
    ///
    /// Processes get SIGTERM, and SIGKILL if they still run after [`Options::shutdown`].
    pub async fn shutdown(&self) {
        self.close();
        self.0.lifetimes.close().await;
        for function in self.0.functions.values() {
            function.idle().environments.clear();
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// Starts to end all environments like [`shutdown`](Self::shutdown), but does not wait for their end.
    pub fn close(&self) {
        self.0.lifetimes.begin_to_close();
    }
}

impl Invoke for Functions {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a> {
        self.invoke_as(function, uuid(&*self.options().entropy), payload)
    }

    fn invoke_as<'a>(&'a self, function: &'a str, request_id: String, payload: Bytes) -> Invocation<'a> {
        Box::pin(Arc::clone(&self.0).requested(function, request_id, payload, None))
    }
}

impl Inner {
    pub(super) fn function(&self, name: &str) -> Result<&Arc<Function>, InvokeError> {
        self.functions.get(name).ok_or_else(|| InvokeError::NotFound(name.to_owned()))
    }

    /// Runs one invocation, and injects faults into it. `caused_by` is the trace header of the call that
    /// invokes the function.
    pub(super) async fn requested(
        self: Arc<Self>,
        name: &str,
        request_id: String,
        payload: Bytes,
        caused_by: Option<&str>,
    ) -> Result<Bytes, InvokeError> {
        let trace_id = self.trace(&self.function(name)?.config, caused_by)?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge(MAX_PAYLOAD_BYTES));
        }
        let resources: &[&str] = &[name];
        let (service, operation) = (Service::Lambda, CallContext::INVOKE);
        let context = CallContext { service, operation, resources, index: None, caller: None };
        let Effects { delay, effect, .. } = self.options.faults.inject(&context, |effect| {
            matches!(
                effect,
                Effect::Throttle
                    | Effect::Fail
                    | Effect::FailAfterApply
                    | Effect::LoseAnswer
                    | Effect::Delay(_)
                    | Effect::Kill
            )
        });
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match effect {
            Some(Effect::Throttle) => return Err(InvokeError::Throttled),
            Some(Effect::Fail) => {
                return Err(InvokeError::exited(&request_id, "Runtime exited with error: exit status 1"));
            }
            _ => {}
        }
        let (function, admitted) = self.admit(name)?;
        let longest_wait = function.config.timeout + LOST_ANSWER_MARGIN;
        let began = Instant::now();
        let kill = effect == Some(Effect::Kill);
        let midway_fault = match &function.config.code {
            Code::InProcess(_) => self.options.faults.midway_fault(&context),
            Code::Program(_) => None,
        };
        // Use a separate task. As on AWS, the function then continues to run when its caller leaves, and the
        // environment returns to the idle list afterward.
        let invocation = tokio::spawn(async move {
            let _admitted = admitted;
            self.invoke(&function, request_id, trace_id, payload, kill, midway_fault).await
        });
        let reply = invocation
            .await
            .unwrap_or_else(|error| Err(InvokeError::function("Sandbox.Failure", error.to_string())));
        match effect {
            Some(Effect::FailAfterApply) => Err(InvokeError::Service),
            Some(Effect::LoseAnswer) => {
                // The caller waits only until the function's timeout and the margin have passed.
                tokio::time::sleep(longest_wait.saturating_sub(began.elapsed())).await;
                Err(InvokeError::Service)
            }
            _ => reply,
        }
    }

    /// Returns the trace header of an invocation. `caused_by` is the trace header of the call that invokes
    /// the function.
    ///
    /// # Errors
    /// [`InvokeError::Recursion`] if loop detection stops the invocation.
    pub(super) fn trace(
        &self,
        config: &FunctionConfig,
        caused_by: Option<&str>,
    ) -> Result<String, InvokeError> {
        let Options { clock, entropy, .. } = &self.options;
        if config.recursive_loop {
            return Ok(trace_id(&**entropy, clock.now()));
        }
        let trace = lineage::trace(&config.arn(), caused_by, &**entropy, clock.now());
        trace.ok_or(InvokeError::Recursion)
    }

    fn admit(&self, name: &str) -> Result<(Arc<Function>, Admitted), InvokeError> {
        let function = self.function(name)?;
        // Count the invocation before the check. A concurrent shutdown then either waits for the invocation
        // or is detected by the check.
        let alive = self.lifetimes.enter();
        if self.lifetimes.is_closing() {
            return Err(InvokeError::Throttled);
        }
        let permit = Arc::clone(&function.concurrency).try_acquire_owned();
        let permit = permit.map_err(|_| InvokeError::Throttled)?;
        Ok((Arc::clone(function), Admitted { _permit: permit, _alive: alive }))
    }

    async fn invoke(
        &self,
        function: &Arc<Function>,
        request_id: String,
        trace_id: String,
        payload: Bytes,
        kill: bool,
        midway_fault: Option<MidwayFault>,
    ) -> Result<Bytes, InvokeError> {
        let mut environment = self.environment(function, &request_id).await?;
        let timeout = function.config.timeout;
        let now = self.options.clock.now();
        let event = Event {
            request_id,
            trace_id,
            deadline_ms: (now + timeout).as_millis(),
            function_arn: function.config.arn(),
            payload,
        };
        let (faults, caller) = (&self.options.faults, environment.caller().clone());
        faults
            .notify(|| Observation::Invoked { environment: caller.clone(), payload: event.payload.clone() });
        let midway_fault = midway_fault.map(|midway_fault| (faults, midway_fault));
        let ended = environment.invoke(event, timeout, kill, midway_fault).await;
        faults.notify(|| Observation::Returned {
            environment: caller,
            outcome: match &ended {
                Ok(Ok(reply)) => Ok(reply.clone()),
                Ok(Err(error)) | Err(error) => Err(error.to_string()),
            },
        });
        match ended {
            Ok(reply) => {
                self.return_to_idle(function, environment).await;
                reply
            }
            Err(error) => {
                environment.end().await;
                Err(error)
            }
        }
    }

    /// Adds an environment that has answered its event to the idle list, or ends the environment if it is
    /// outdated.
    async fn return_to_idle(&self, function: &Arc<Function>, environment: Environment) {
        if environment.is_outdated() {
            environment.end().await;
        } else {
            function.release(environment, self.options.idle_timeout, &self.lifetimes);
        }
    }

    /// Returns the most recently used environment that is ready, or starts a new environment.
    async fn environment(&self, function: &Function, request_id: &str) -> Result<Environment, InvokeError> {
        let mut busy = Vec::new();
        let mut found = None;
        while let Some((mut environment, since)) = function.take() {
            match environment.readiness().await {
                // The environment became outdated while it was out of the idle list, so `renew` could not end
                // it.
                Readiness::Ready | Readiness::Busy if environment.is_outdated() => environment.end().await,
                Readiness::Ready => {
                    found = Some(environment);
                    break;
                }
                Readiness::Busy => busy.push((environment, since)),
                Readiness::Gone => drop(environment),
            }
        }
        function.idle().environments.splice(..0, busy);
        match found {
            Some(environment) => Ok(environment),
            None => self.start(function, request_id).await,
        }
    }

    async fn start(&self, function: &Function, request_id: &str) -> Result<Environment, InvokeError> {
        let Options { faults, .. } = &self.options;
        let resources: &[&str] = &[&function.config.name];
        let (service, operation) = (Service::Lambda, CallContext::INIT);
        let context = CallContext { service, operation, resources, index: None, caller: None };
        let effects = faults.inject(&context, |effect| matches!(effect, Effect::Delay(_) | Effect::Fail));
        let in_process = matches!(function.config.code, Code::InProcess(_));
        let skewed = faults.inject(&context, |effect| in_process && matches!(effect, Effect::Skew(_)));
        let skew = if let Some(Effect::Skew(skew)) = skewed.effect { skew } else { Skew::default() };
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let registration = function.registry.register(|| {
            let version = self.version.load(Ordering::Relaxed);
            Caller::numbered(&function.config.name, number, version, skew)
        });
        let environment = registration.caller().clone();
        faults.notify(|| Observation::Started { environment });
        let (options, lifetimes) = (&self.options, &self.lifetimes);
        Environment::start(registration, &function.config, options, lifetimes, request_id, effects).await
    }
}
