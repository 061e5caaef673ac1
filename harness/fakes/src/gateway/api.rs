//! What the parts of the gateway share: one API's configuration, its connections, and the tasks that serve them.

use std::sync::{Arc, Mutex, PoisonError};

use streamer::ports::{Clock, Entropy};

use super::config::ApiConfig;
use super::connections::Connections;
use super::rates::Rates;
use super::selection::RouteSelection;
use crate::faults::Faults;
use crate::lambda::Invoke;
use crate::watch;

/// What the parts of the gateway share.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) config: ApiConfig,
    pub(super) rates: Rates,
    pub(super) selection: RouteSelection,
    pub(super) invoke: Arc<dyn Invoke>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) connections: Connections,
    pub(super) active: Active,
    pub(super) faults: Mutex<Faults>,
}

impl Api {
    pub(super) fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts the tasks that serve connections, and tells them when to stop.
#[derive(Debug, Default)]
pub(super) struct Active {
    count: watch::Sender<usize>,
    closing: watch::Sender<bool>,
}

impl Active {
    /// Counts one more task until the guard is dropped, or refuses because the gateway is closing.
    pub(super) fn enter(&self) -> Option<ActiveGuard> {
        // Counted before it looks, so that `drained` cannot miss it.
        self.count.send_modify(|count| *count += 1);
        let guard = ActiveGuard(self.count.clone());
        (!*self.closing.borrow()).then_some(guard)
    }

    /// Waits for the gateway to close.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.subscribe();
        // A gateway that is gone is closed, too.
        async move { drop(closing.wait_for(|closing| *closing).await) }
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(super) async fn drained(&self) {
        // The sender lives in `self`, so the wait ends only when the count is zero.
        drop(self.count.subscribe().wait_for(|count| *count == 0).await);
    }
}

#[derive(Debug)]
pub(super) struct ActiveGuard(watch::Sender<usize>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
