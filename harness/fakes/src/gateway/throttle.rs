//! Rate limit settings of an API and of its routes.

use std::time::Duration;

/// Rate limit with a token bucket: the bucket holds up to `burst` tokens and gains one token per `interval`.
///
/// Each request takes one token. A request that arrives while the bucket is empty is rejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Throttle {
    /// Time until the token bucket gains one more token.
    pub interval: Duration,
    /// Maximum number of tokens in the bucket, and so the largest burst of requests; 0 rejects every request.
    pub burst: u32,
}

impl Throttle {
    /// Returns a throttle of `rate` requests per second, with bursts of up to `burst` requests.
    ///
    /// `rate` may be a fraction. A rate that is zero, negative or not a number adds one token per 366 days.
    #[must_use]
    pub fn per_second(rate: f64, burst: u32) -> Self {
        // Longer intervals make no practical difference, and could overflow in sums with an `Instant`.
        let interval = Duration::try_from_secs_f64(1.0 / rate)
            .map_or(MAX_DURATION, |interval| interval.min(MAX_DURATION));
        Self { interval, burst }
    }
}

/// Maximum duration of a setting: 366 days. Adding a longer duration to an `Instant` could overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);
