//! One function: its configuration, its concurrency, and its environments.

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
    /// One permit for each invocation that may run: its own if it reserves concurrency, else the account's.
    pub(super) concurrency: Arc<Semaphore>,
    idle: Mutex<Idle>,
    pub(super) registry: Registry,
}

/// Environments that have answered.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Since when each waits; the most recently used is last.
    pub(super) environments: Vec<(Environment, Instant)>,
    /// Whether a task ends those that wait for too long.
    watched: bool,
}

impl Function {
    pub(super) fn new(config: FunctionConfig, unreserved: &Arc<Semaphore>) -> Self {
        let concurrency = config.reserved_concurrency.map_or_else(|| Arc::clone(unreserved), semaphore);
        Self { config, concurrency, idle: Mutex::default(), registry: Registry::default() }
    }

    /// The list is whole between any two statements here, so a panic elsewhere does not spoil it.
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
            // A deploy has just cleared the list.
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

    /// Ends the environments that have waited for `timeout`, and says when the next one will have.
    fn end_idle(&self, timeout: Duration) -> Option<Instant> {
        let mut idle = self.idle();
        idle.environments.retain(|(_, since)| since.elapsed() < timeout);
        let oldest = idle.environments.iter().map(|(_, since)| *since).min();
        idle.watched = oldest.is_some();
        // So far away that there is no such moment: never.
        oldest.and_then(|since| since.checked_add(timeout))
    }
}

/// Ends environments of a function as they have waited for too long, until none is left.
async fn end_idle(function: Weak<Function>, timeout: Duration) {
    while let Some(next) = function.upgrade().and_then(|function| function.end_idle(timeout)) {
        tokio::time::sleep_until(next).await;
    }
}

pub(super) fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits))
}
