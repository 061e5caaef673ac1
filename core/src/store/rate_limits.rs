//! The port for rate limits that all Lambda environments share, and the arithmetic of their token buckets.

use std::future::Future;
use std::time::Duration;

use super::StoreError;
use crate::ports::Timestamp;

/// A rate limit: a number of calls per period, plus a burst of calls at the same moment.
///
/// The limit is a token bucket with room for `burst` tokens. Each call takes one token, and one token returns every
/// `period / requests`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Time until one taken token returns, in microseconds.
    interval_us: u64,
    /// Capacity of the bucket, in tokens.
    burst: u32,
}

impl Rate {
    /// Creates a limit of `requests` calls per `period`, with a burst of the same size.
    ///
    /// # Panics
    /// Panics if `requests` or `period` is zero.
    #[must_use]
    pub const fn new(requests: u32, period: Duration) -> Self {
        assert!(
            requests > 0 && !period.is_zero(),
            "a rate needs at least one request and a period above zero"
        );
        let period_us =
            period.as_secs().saturating_mul(1_000_000).saturating_add(period.subsec_micros() as u64);
        let interval_us = period_us / requests as u64;
        Self { interval_us: if interval_us == 0 { 1 } else { interval_us }, burst: requests }
    }

    /// Creates a limit of `requests` calls per second, with a burst of the same size.
    ///
    /// # Panics
    /// Panics if `requests` is zero.
    #[must_use]
    pub const fn per_second(requests: u32) -> Self {
        Self::new(requests, Duration::from_secs(1))
    }

    /// Creates a limit of `requests` calls per minute, with a burst of the same size.
    ///
    /// # Panics
    /// Panics if `requests` is zero.
    #[must_use]
    pub const fn per_minute(requests: u32) -> Self {
        Self::new(requests, Duration::from_mins(1))
    }

    /// Sets the number of calls that may happen at the same moment, at least 1. Defaults to the number of calls per
    /// period.
    ///
    /// # Panics
    /// Panics if `burst` is zero, because such a limit would refuse every call.
    #[must_use]
    pub const fn with_burst(mut self, burst: u32) -> Self {
        assert!(burst > 0, "a burst needs at least one request");
        self.burst = burst;
        self
    }

    /// Takes a token and returns the bucket's new state; `None` if the bucket has no token.
    pub(crate) fn take(self, bucket: FullAt, now: Timestamp) -> Option<FullAt> {
        (bucket <= self.latest(now)).then(|| bucket.max(FullAt::now(now)).after(self.interval_us))
    }

    /// Returns the time until the bucket has a token; zero if the bucket has a token now.
    pub(crate) fn wait(self, bucket: FullAt, now: Timestamp) -> Duration {
        Duration::from_micros(bucket.0.saturating_sub(self.latest(now).0))
    }

    /// Returns the time until one taken token returns, in microseconds.
    pub(crate) const fn interval_us(self) -> u64 {
        self.interval_us
    }

    /// Returns the latest state that a bucket with at least one token can have at `now`.
    pub(crate) fn latest(self, now: Timestamp) -> FullAt {
        FullAt::now(now).after(self.interval_us.saturating_mul(u64::from(self.burst) - 1))
    }
}

/// The state of a token bucket: the time at which the bucket will be full again, in microseconds since the Unix epoch.
///
/// This time is the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371). It never decreases.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct FullAt(u64);

impl FullAt {
    /// Creates the state from a stored number of microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the time at which the bucket will be full again, in microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the state of a bucket that becomes full at `now`.
    pub(crate) const fn now(now: Timestamp) -> Self {
        Self(now.as_millis().saturating_mul(1_000))
    }

    pub(crate) const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// Result of taking a token from a bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// The token was taken; the value is the bucket's new state.
    Granted(FullAt),
    /// The bucket has no token left; the value is the bucket's present state.
    Refused(FullAt),
}

/// Stores token buckets that several Lambda environments share.
pub trait RateLimits: Send + Sync {
    /// Takes a token from the named bucket, whose size and refill time `rate` defines.
    ///
    /// `known` is the latest bucket state that the caller has received, or the zero state if it has received none. `known` only decides which write
    /// is tried first, never whether the token is granted.
    ///
    /// # Errors
    /// [`StoreError`] if the write fails, or if the stored item is not a valid bucket. Up to two tokens may have been
    /// taken despite the error.
    fn take(
        &self,
        bucket: &str,
        rate: Rate,
        now: Timestamp,
        known: FullAt,
    ) -> impl Future<Output = Result<Taken, StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns how many calls are granted when calls arrive at the times `at`, in milliseconds.
    fn granted(rate: Rate, at: impl IntoIterator<Item = u64>) -> usize {
        let mut bucket = FullAt::default();
        let mut granted = 0;
        for now in at.into_iter().map(Timestamp::from_millis) {
            if let Some(taken) = rate.take(bucket, now) {
                bucket = taken;
                granted += 1;
            } else {
                let until = now + rate.wait(bucket, now) + Duration::from_millis(1);
                assert!(
                    rate.take(bucket, until).is_some(),
                    "after the announced wait, the bucket has a token"
                );
            }
        }
        granted
    }

    #[test]
    fn rate_grants_a_burst_and_then_one_call_per_interval() {
        let rate = Rate::per_second(10).with_burst(3);
        assert_eq!(granted(rate, [5_000; 100]), 3);
        assert_eq!(
            granted(rate, 5_000..6_000),
            3 + 9,
            "a burst of three is granted, then one call every 100 ms"
        );
        assert_eq!(
            granted(Rate::per_minute(60), [5_000; 100]),
            60,
            "the default burst is the number of calls per period"
        );
        assert_eq!(granted(Rate::per_second(10).with_burst(1), [5_000, 5_099, 5_100, 5_199]), 2);
    }

    #[test]
    fn rate_with_zero_requests_zero_period_or_zero_burst_panics() {
        for wrong in
            [|| Rate::per_second(0), || Rate::new(1, Duration::ZERO), || Rate::per_second(1).with_burst(0)]
        {
            assert!(std::panic::catch_unwind(wrong).is_err());
        }
        assert_eq!(Rate::new(u32::MAX, Duration::from_nanos(1)).interval_us(), 1);
    }

    proptest! {
        #[test]
        fn granted_calls_never_exceed_the_burst_plus_the_refill(
            mut at in proptest::collection::vec(0..20_000_u64, 1..200),
            requests in 1..50_u32, burst in 1..50_u32,
        ) {
            at.sort_unstable();
            let rate = Rate::per_second(requests).with_burst(burst);
            let span_us = (at[at.len() - 1] - at[0]) * 1_000;
            let share = span_us / rate.interval_us() + u64::from(burst);
            prop_assert!(granted(rate, at) as u64 <= share);
        }
    }
}
