use std::time::Duration;

use tokio::time::Instant;

use crate::config::Environment;
use crate::lifecycle::Rules;

/// How requests are run.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// How long a claim holds without being renewed; it is renewed at a third. Default 60 s.
    pub lease: Duration,
    /// The least time between two progress frames of a request. Default 100 ms.
    pub push_interval: Duration,
    /// The least time between two stored progress reports of a request. Default 1 s.
    pub store_interval: Duration,
    /// How long one frame may take to one client. Default 3 s.
    pub push_timeout: Duration,
    /// How long before its invocation's end a handler is stopped, so that there is time to say so. Default 10 s.
    pub deadline_margin: Duration,
    /// How long a handler that is told to stop has to clean up. Default 5 s.
    pub stop_grace: Duration,
    /// By how much the clocks of two functions may differ: nothing is pushed so shortly before a lease's end. Default 5 s.
    pub clock_skew: Duration,
    /// The rules that requests live by.
    pub rules: Rules,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            push_interval: Duration::from_millis(100),
            store_interval: Duration::from_secs(1),
            push_timeout: Duration::from_secs(3),
            deadline_margin: Duration::from_secs(10),
            stop_grace: Duration::from_secs(5),
            clock_skew: Duration::from_secs(5),
            rules: Rules::default(),
        }
    }
}

impl ExecutorSettings {
    /// Reads `LEASE_MS` and `MAX_CONTINUATIONS`, as [`lambda`](crate::lambda) has them.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self {
            lease: environment.milliseconds("LEASE_MS", defaults.lease, 30_000..=900_000),
            rules: Rules::from_env(environment),
            ..defaults
        }
    }

    /// Until when a lease that was asked for at `asked_at` surely holds, whatever the clocks of others say.
    pub(super) fn lease_holds_until(&self, asked_at: Instant) -> Instant {
        asked_at + self.lease.saturating_sub(self.clock_skew)
    }
}
