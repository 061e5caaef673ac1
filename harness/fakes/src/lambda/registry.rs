//! Registry of a function's environments, used to kill, thaw or replace the environments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::faults::Caller;

/// Registry of the environments of one function. An environment is registered from its start to its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry(Arc<Mutex<BTreeMap<u64, Entry>>>);

#[derive(Debug)]
struct Entry {
    caller: Caller,
    is_outdated: Arc<AtomicBool>,
}

impl Registry {
    /// Registers the environment that `start` creates.
    ///
    /// `start` runs under the registry's lock. A deploy therefore either comes first, so that `start` uses
    /// the new version, or finds the environment in the registry and marks it as outdated.
    pub(super) fn register(&self, start: impl FnOnce() -> Caller) -> Registration {
        let is_outdated = Arc::<AtomicBool>::default();
        let mut entries = self.lock();
        let caller = start();
        let entry = Entry { caller: caller.clone(), is_outdated: Arc::clone(&is_outdated) };
        entries.insert(caller.number(), entry);
        drop(entries);
        Registration { caller, is_outdated, registry: self.clone() }
    }

    pub(super) fn kill(&self) -> usize {
        let entries = self.lock();
        entries.values().for_each(|entry| entry.caller.kill());
        entries.len()
    }

    pub(super) fn thaw(&self) {
        self.lock().values().for_each(|entry| entry.caller.thaw());
    }

    pub(super) fn outdate(&self, which: impl Fn(&Caller) -> bool) {
        let entries = self.lock();
        let matching = entries.values().filter(|entry| which(&entry.caller));
        matching.for_each(|entry| entry.is_outdated.store(true, Ordering::Relaxed));
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registration of one environment. Dropping this value removes the environment from the registry.
#[derive(Debug)]
pub(super) struct Registration {
    caller: Caller,
    is_outdated: Arc<AtomicBool>,
    registry: Registry,
}

impl Registration {
    pub(super) const fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.caller.number());
    }
}
