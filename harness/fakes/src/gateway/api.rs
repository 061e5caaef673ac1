//! State of one WebSocket API that the gateway's modules share: configuration, connections, and serving tasks.

use std::sync::{Arc, Mutex, PoisonError};

use streamer::ports::{Clock, Entropy};

use super::config::ApiConfig;
use super::connections::Connections;
use super::rates::Rates;
use super::selection::RouteSelection;
use crate::faults::Faults;
use crate::lambda::Invoke;
use crate::watch;

/// State of one WebSocket API that the gateway's modules share.
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

/// Counts the tasks that serve connections, and signals them to stop.
#[derive(Debug, Default)]
pub(super) struct Active {
    count: watch::Sender<usize>,
    closing: watch::Sender<bool>,
}

impl Active {
    /// Counts the calling task as active until the returned guard is dropped. Returns `None` if the gateway
    /// is closing.
    pub(super) fn enter(&self) -> Option<ActiveGuard> {
        // Count the task before checking `closing`. In the reverse order, `drained` could return although
        // this task is about to start.
        self.count.send_modify(|count| *count += 1);
        let guard = ActiveGuard(self.count.clone());
        (!*self.closing.borrow()).then_some(guard)
    }

    /// Returns a future that completes when the gateway closes.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.subscribe();
        // `wait_for` fails only if the sender was dropped. The gateway is closed in that case too.
        async move { drop(closing.wait_for(|closing| *closing).await) }
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(super) async fn drained(&self) {
        // `self` holds the sender, so the wait ends only when the count is zero.
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
