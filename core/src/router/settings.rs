use std::time::Duration;

use crate::config::Environment;
use crate::middleware::Routing;
use crate::processor::ProcessorSettings;

/// Settings of the [`Router`](super::Router): the estimated durations that decide where a request runs.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Estimated duration above which a request is queued instead of answered immediately. Default 5 s.
    pub async_threshold: Duration,
    /// Estimated duration above which the worker runs a queued request, in its own invocation. Shorter
    /// requests run in the processor, several per invocation. Default: [`ProcessorSettings::inline_limit`].
    pub inline_limit: Duration,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            async_threshold: Routing::DEFAULT_ASYNC_THRESHOLD,
            inline_limit: ProcessorSettings::default().inline_limit,
        }
    }
}

impl RouterSettings {
    /// Reads `ASYNC_THRESHOLD_MS` and `INLINE_LIMIT_MS` from the environment.
    ///
    /// See [`lambda`](crate::lambda) for their defaults and bounds.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let default = Self::default().async_threshold;
        Self {
            async_threshold: environment.milliseconds("ASYNC_THRESHOLD_MS", default, 0..=25_000),
            inline_limit: ProcessorSettings::inline_limit_from_env(environment),
        }
    }
}
