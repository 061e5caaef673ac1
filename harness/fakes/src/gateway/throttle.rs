//! How often something may be called.

use std::time::Duration;

/// A steady rate, and how far a burst may go beyond it: a bucket of `burst` tokens, filled with one each `interval`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Throttle {
    /// How long one token takes to come.
    pub interval: Duration,
    /// How many tokens there may be at once; 0 lets nothing through.
    pub burst: u32,
}

impl Throttle {
    /// `rate` requests a second, which may be part of one or none, with bursts of `burst`.
    #[must_use]
    pub fn per_second(rate: f64, burst: u32) -> Self {
        // What cannot be told from never, such as one in a thousand years, is never.
        let interval = Duration::try_from_secs_f64(1.0 / rate).map_or(FAR, |interval| interval.min(FAR));
        Self { interval, burst }
    }
}

/// Deadlines are sums of `Instant` and `Duration`, which overflow when one is absurd.
pub(super) const FAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
