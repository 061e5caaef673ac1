use std::time::Duration;

use crate::config::Environment;
use crate::middleware::Routing;
use crate::processor::ProcessorSettings;

/// What the router decides by.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// What is expected to take longer than this is queued. Default 5 s.
    pub async_threshold: Duration,
    /// What is expected to take longer than this is run by the worker, alone; the rest by the processor, beside others.
    /// Default [the processor's own](ProcessorSettings::inline_limit).
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
    /// Reads `ASYNC_THRESHOLD_MS` and `INLINE_LIMIT_MS`, as [`lambda`](crate::lambda) has them.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let default = Self::default().async_threshold;
        Self {
            async_threshold: environment.milliseconds("ASYNC_THRESHOLD_MS", default, 0..=25_000),
            inline_limit: ProcessorSettings::inline_limit_from_env(environment),
        }
    }
}
