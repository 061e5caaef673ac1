use std::time::Duration;

/// When an attempt that failed is followed by another.
///
/// An error says itself whether another attempt is worth it: see [`HandlerError`](super::HandlerError). What happens to a
/// handler without its saying so, a timeout or a panic, is decided here. A process that dies costs its requests one
/// attempt each, whatever the policy says.
///
/// The wait before attempt `n + 1` is a random part of `base · factor^(n − 1)`, but of `cap` at most (full jitter).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often a request is attempted at most, the first time included. From 1 to 100, default 3.
    pub max_attempts: u32,
    /// The longest wait before the second attempt. Default 1 s.
    pub base: Duration,
    /// By how much the longest wait grows from attempt to attempt. At least 1, default 2.
    pub factor: f64,
    /// The longest wait of all. At most 24 h, default 5 min.
    pub cap: Duration,
    /// Whether what took longer than it may is tried again. Default yes.
    pub retries_timeouts: bool,
    /// Whether a handler that panicked is tried again. Default yes.
    pub retries_panics: bool,
}

impl RetryPolicy {
    /// The most attempts that a policy may allow.
    pub const MAX_ATTEMPTS: u32 = 100;
    /// The longest wait that a policy may ask for.
    pub const MAX_CAP: Duration = Duration::from_hours(24);

    /// One attempt, whatever comes of it.
    #[must_use]
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// This many attempts, the first included.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// The same, with another longest wait before the second attempt.
    #[must_use]
    pub fn base(self, base: Duration) -> Self {
        Self { base, ..self }
    }

    /// The same, with waits that grow by another factor.
    #[must_use]
    pub fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// The same, with another longest wait of all.
    #[must_use]
    pub fn cap(self, cap: Duration) -> Self {
        Self { cap, ..self }
    }

    /// The wait after attempt `attempt` has failed; `chance`, from 0 to 1, is how much of the longest is waited.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, chance: f64) -> Duration {
        let cap = self.cap.min(Self::MAX_CAP);
        let exponent = f64::from(attempt.saturating_sub(1));
        let longest = (self.base.as_secs_f64() * self.factor.max(1.0).powf(exponent)).min(cap.as_secs_f64());
        Duration::try_from_secs_f64(longest * chance.clamp(0.0, 1.0)).unwrap_or(cap)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_mins(5),
            retries_timeouts: true,
            retries_panics: true,
        }
    }
}
