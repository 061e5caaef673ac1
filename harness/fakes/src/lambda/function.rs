//! One function: configuration, concurrency, and execution environments.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::config::FunctionConfig;
use super::environment::Environment;
use super::process::Lifetimes;
use super::registry::Registry;

#[derive(Debug)]
pub(super) struct Function {
    pub(super) config: FunctionConfig,
    /// One permit per concurrent invocation: the function's own permits if it reserves concurrency, otherwise
    /// the permits that all functions of the account share.
    pub(super) concurrency: Arc<Semaphore>,
    idle: Mutex<Idle>,
    pub(super) registry: Registry,
}

/// Environments that have answered their last event and wait for the next.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Idle environments, each with the time at which it became idle; the most recently used environment is
    /// last.
    pub(super) environments: Vec<(Environment, Instant)>,
    /// Whether a task is running that ends environments after the idle timeout.
    watched: bool,
}

impl Function {
    pub(super) fn new(config: FunctionConfig, unreserved: &Arc<Semaphore>) -> Self {
        let concurrency = config.reserved_concurrency.map_or_else(|| Arc::clone(unreserved), semaphore);
        Self { config, concurrency, idle: Mutex::default(), registry: Registry::default() }
    }

    /// Locks the list of idle environments and ignores poisoning: the list is consistent after each
    /// statement, so a panic cannot corrupt it.
    pub(super) fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Option<(Environment, Instant)> {
        self.idle().environments.pop()
    }

    pub(super) fn release(
        self: &Arc<Self>,
        environment: Environment,
        idle_timeout: Option<Duration>,
        lifetimes: &Lifetimes,
    ) {
        let mut idle = self.idle();
        if environment.is_outdated() {
            // The environment became outdated after the caller's check. Drop the environment instead of
            // keeping it idle.
            return;
        }
        idle.environments.push((environment, Instant::now()));
        if let Some(timeout) = idle_timeout.filter(|_| !idle.watched) {
            idle.watched = true;
            let (function, lifetimes) = (Arc::downgrade(self), lifetimes.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = lifetimes.closed() => {}
                    () = end_idle(function, timeout) => {}
                }
            });
        }
    }

    /// Ends the environments that have been idle for `timeout`, and returns the time of the next check.
    ///
    /// Returns `None` if no environment is left.
    fn end_idle(&self, timeout: Duration) -> Option<Instant> {
        let mut idle = self.idle();
        idle.environments.retain(|(_, since)| since.elapsed() < timeout);
        let oldest = idle.environments.iter().map(|(_, since)| *since).min();
        idle.watched = oldest.is_some();
        // An overflow means that the timeout is so long that it never passes.
        oldest.and_then(|since| since.checked_add(timeout))
    }
}

/// Ends each idle environment of `function` after `timeout`, until no idle environment is left.
async fn end_idle(function: Weak<Function>, timeout: Duration) {
    while let Some(next) = function.upgrade().and_then(|function| function.end_idle(timeout)) {
        tokio::time::sleep_until(next).await;
    }
}

pub(super) fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits))
}
