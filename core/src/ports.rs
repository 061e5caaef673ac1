//! The ports (interfaces) for time and randomness. All code in this crate gets the time from a [`Clock`] and random
//! bytes from an [`Entropy`], so that tests and the simulator can control time and randomness.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A point in time, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Creates the timestamp `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Creates the timestamp `secs` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    /// Returns the duration from `earlier` to `self`, or zero if `earlier` is the later of the two times.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A source of the current time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The [`Clock`] that returns the time of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this implements the `Clock` port, which all other code must use to get the time"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::default() + since_epoch
    }
}

/// A [`Clock`] that starts at a given time and advances with tokio's time, which is real unless a test has paused it.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    epoch: Timestamp,
    started: Instant,
}

impl TokioClock {
    /// Creates a clock that shows `epoch` now and advances with tokio's time.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}

/// A source of unpredictable random bytes.
pub trait Entropy: fmt::Debug + Send + Sync {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The [`Entropy`] that uses the random number generator of the operating system.
#[derive(Clone, Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// Creates a handle to the operating system's random number generator.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system cannot provide random bytes, which does not happen on supported systems.
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the operating system provides random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_arithmetic_saturates_instead_of_overflowing() {
        let t = Timestamp::from_secs(10);
        assert_eq!(t + Duration::from_millis(1_500), Timestamp::from_millis(11_500));
        assert_eq!((t + Duration::from_millis(1_999)).as_secs(), 11);
        assert_eq!(t.since(Timestamp::from_secs(12)), Duration::ZERO);
        assert_eq!(Timestamp::from_secs(12).since(t), Duration::from_secs(2));
        assert_eq!((Timestamp::from_millis(u64::MAX) + Duration::MAX).as_millis(), u64::MAX);
    }

    #[test]
    fn system_clock_shows_2026_or_later_and_system_entropy_does_not_repeat() {
        assert!(SystemClock.now() > Timestamp::from_secs(1_767_225_600));
        let (mut a, mut b) = ([0; 16], [0; 16]);
        SystemEntropy::new().fill(&mut a);
        SystemEntropy::new().fill(&mut b);
        assert_ne!(a, b);
    }
}
