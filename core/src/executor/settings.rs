use std::time::Duration;

use tokio::time::Instant;

use crate::config::Environment;
use crate::lifecycle::Rules;

/// Settings of the attempts that an [`Executor`](super::Executor) runs.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// Duration of a request's lease. A running attempt renews its lease after a third of this time.
    /// Default 60 s.
    pub lease: Duration,
    /// Minimum time between two progress frames of one request. Default 100 ms.
    pub push_interval: Duration,
    /// Minimum time between two stored progress reports of one request; a checkpoint is stored without this
    /// wait. Default 1 s.
    pub store_interval: Duration,
    /// Timeout for sending one frame to one client. Default 3 s.
    pub push_timeout: Duration,
    /// Time before the end of the invocation at which the handler is asked to stop, so that there is time to
    /// write the outcome. Default 10 s.
    pub deadline_margin: Duration,
    /// Time that a handler has to clean up after it is asked to stop; shorter if the invocation ends sooner.
    /// Default 5 s.
    pub stop_grace: Duration,
    /// Assumed maximum difference between the clocks of two functions. An attempt stops pushing progress this
    /// long before its lease expires. Default 5 s.
    pub clock_skew: Duration,
    /// Limits of the request state machine, such as the maximum number of continuations.
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
    /// Reads `LEASE_MS` and `MAX_CONTINUATIONS` from the environment; all other settings keep their defaults.
    ///
    /// See [`lambda`](crate::lambda) for the environment variables.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self {
            lease: environment.milliseconds("LEASE_MS", defaults.lease, 30_000..=900_000),
            rules: Rules::from_env(environment),
            ..defaults
        }
    }

    /// Returns the instant until which a lease requested at `requested_at` certainly holds, even for a function
    /// whose clock is ahead by [`clock_skew`](Self::clock_skew).
    pub(super) fn lease_holds_until(&self, requested_at: Instant) -> Instant {
        requested_at + self.lease.saturating_sub(self.clock_skew)
    }
}
