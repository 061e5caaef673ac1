//! The port to what counts calls for all environments together, and the arithmetic of its buckets.

use std::future::Future;
use std::time::Duration;

use super::StoreError;
use crate::ports::Timestamp;

/// How often something may happen: so many times in a period, spread evenly, and a burst of it at once.
///
/// As a token bucket: `burst` tokens fit in, each call takes one, and one comes back every `period / requests`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How long a token takes to come back.
    interval_us: u64,
    burst: u32,
}

impl Rate {
    /// `requests` in each `period`, all of them at once if need be.
    ///
    /// # Panics
    /// When `requests` or `period` is zero: that is no rate.
    #[must_use]
    pub const fn new(requests: u32, period: Duration) -> Self {
        assert!(requests > 0 && !period.is_zero(), "a rate needs a request and a period");
        let period_us =
            period.as_secs().saturating_mul(1_000_000).saturating_add(period.subsec_micros() as u64);
        let interval_us = period_us / requests as u64;
        Self { interval_us: if interval_us == 0 { 1 } else { interval_us }, burst: requests }
    }

    /// `requests` a second, all of them at once if need be.
    ///
    /// # Panics
    /// When `requests` is zero.
    #[must_use]
    pub const fn per_second(requests: u32) -> Self {
        Self::new(requests, Duration::from_secs(1))
    }

    /// `requests` a minute, all of them at once if need be.
    ///
    /// # Panics
    /// When `requests` is zero.
    #[must_use]
    pub const fn per_minute(requests: u32) -> Self {
        Self::new(requests, Duration::from_mins(1))
    }

    /// At most `burst` at once, from 1; default as many as in a period.
    ///
    /// # Panics
    /// When `burst` is zero: nothing would ever happen.
    #[must_use]
    pub const fn with_burst(mut self, burst: u32) -> Self {
        assert!(burst > 0, "a burst needs a request");
        self.burst = burst;
        self
    }

    /// The bucket after a token was taken, if there is one.
    pub(crate) fn take(self, bucket: FullAt, now: Timestamp) -> Option<FullAt> {
        (bucket <= self.latest(now)).then(|| bucket.max(FullAt::now(now)).after(self.interval_us))
    }

    /// How long until there is a token.
    pub(crate) fn wait(self, bucket: FullAt, now: Timestamp) -> Duration {
        Duration::from_micros(bucket.0.saturating_sub(self.latest(now).0))
    }

    /// How long a token takes to come back, in microseconds.
    pub(crate) const fn interval_us(self) -> u64 {
        self.interval_us
    }

    /// The latest that a bucket with a token left can be full at.
    pub(crate) fn latest(self, now: Timestamp) -> FullAt {
        FullAt::now(now).after(self.interval_us.saturating_mul(u64::from(self.burst) - 1))
    }
}

/// The whole state of a token bucket: when it will be full again, in microseconds since the Unix epoch.
///
/// This is the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371). It never goes back.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct FullAt(u64);

impl FullAt {
    /// Takes a stored number as it is.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// A bucket that is full at this moment.
    pub(crate) const fn now(now: Timestamp) -> Self {
        Self(now.as_millis().saturating_mul(1_000))
    }

    pub(crate) const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// What became of an attempt to take a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It is taken; this is the bucket now.
    Granted(FullAt),
    /// There is none left in this bucket.
    Refused(FullAt),
}

/// Where buckets are kept that several environments share.
pub trait RateLimits: Send + Sync {
    /// Takes a token from a bucket that holds and regains as many as `rate` says. `known` is the latest that is known of
    /// the bucket, zero if nothing is: it decides what is tried first, never what is granted.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no bucket. A token may have been taken, or two.
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

    /// How many of the calls at these moments are let through, each moment in milliseconds.
    fn granted(rate: Rate, at: impl IntoIterator<Item = u64>) -> usize {
        let mut bucket = FullAt::default();
        let mut granted = 0;
        for now in at.into_iter().map(Timestamp::from_millis) {
            if let Some(taken) = rate.take(bucket, now) {
                bucket = taken;
                granted += 1;
            } else {
                let until = now + rate.wait(bucket, now) + Duration::from_millis(1);
                assert!(rate.take(bucket, until).is_some(), "there is a token when it was said to be");
            }
        }
        granted
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_for_each_interval() {
        let rate = Rate::per_second(10).with_burst(3);
        assert_eq!(granted(rate, [5_000; 100]), 3);
        assert_eq!(granted(rate, 5_000..6_000), 3 + 9, "three at once, then one every 100 ms");
        assert_eq!(granted(Rate::per_minute(60), [5_000; 100]), 60, "a burst of a whole period by default");
        assert_eq!(granted(Rate::per_second(10).with_burst(1), [5_000, 5_099, 5_100, 5_199]), 2);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for wrong in
            [|| Rate::per_second(0), || Rate::new(1, Duration::ZERO), || Rate::per_second(1).with_burst(0)]
        {
            assert!(std::panic::catch_unwind(wrong).is_err());
        }
        assert_eq!(Rate::new(u32::MAX, Duration::from_nanos(1)).interval_us(), 1);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_lets_more_through_than_its_burst_and_its_share(
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
