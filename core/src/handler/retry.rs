use std::time::Duration;

/// When an attempt that failed is followed by another.
///
/// An error says itself whether another attempt is worth it: see [`HandlerError`](super::HandlerError). What happens to a
/// handler without its saying so, a timeout or a panic, is decided here. A process that dies costs its requests one
/// attempt each, whatever the policy says.
///
/// The wait before attempt `n + 1` is a random part of `base · factor^(n − 1)`, but of `cap` at most (full jitter).
/// A policy whose numbers make no sense is refused when its handler is
/// [registered](crate::app::RegisterError::RetryPolicy).
///
/// ```
/// use std::time::Duration;
/// use streamer::handler::RetryPolicy;
///
/// let patient = RetryPolicy::attempts(5).base(Duration::from_secs(10)).cap(Duration::from_mins(10));
/// assert_eq!(patient.wait_after(1, 1.0), Duration::from_secs(10));
/// assert_eq!(patient.wait_after(4, 1.0), Duration::from_secs(80));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often a request is attempted at most, the first time included. From 1 to 100, default 3.
    pub max_attempts: u32,
    /// The longest wait before the second attempt. At most `cap`, default 1 s.
    pub base: Duration,
    /// By how much the longest wait grows from attempt to attempt. At least 1, default 2.
    pub factor: f64,
    /// The longest wait of all. At most 24 h, default 5 min.
    pub cap: Duration,
    /// Whether what took longer than it may is tried again. Default yes. What shared its invocation with others when that
    /// ended is in any case tried again, in one of its own, if an attempt is left.
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

    /// The same, but what takes longer than it may is not tried again.
    #[must_use]
    pub fn without_timeouts(self) -> Self {
        Self { retries_timeouts: false, ..self }
    }

    /// The same, but a handler that panics is not tried again.
    #[must_use]
    pub fn without_panics(self) -> Self {
        Self { retries_panics: false, ..self }
    }

    /// The wait after attempt `attempt` has failed; `chance`, from 0 to 1, is how much of the longest is waited.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, chance: f64) -> Duration {
        let cap = self.cap.min(Self::MAX_CAP);
        if self.base.is_zero() {
            return Duration::ZERO;
        }
        let exponent = f64::from(attempt.saturating_sub(1));
        let longest = (self.base.as_secs_f64() * self.factor.max(1.0).powf(exponent)).min(cap.as_secs_f64());
        Duration::try_from_secs_f64(longest * chance.clamp(0.0, 1.0)).map_or(cap, |wait| wait.min(cap))
    }

    /// Says what is wrong with its numbers, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { max_attempts, base, factor, cap, .. } = *self;
        if !(1..=Self::MAX_ATTEMPTS).contains(&max_attempts) {
            Err(format!("allows {max_attempts} attempts, and must allow from 1 to {}", Self::MAX_ATTEMPTS))
        } else if !(factor.is_finite() && factor >= 1.0) {
            Err(format!("has waits grow by {factor}, which must be a number that is at least 1"))
        } else if cap > Self::MAX_CAP {
            Err(format!("has a cap of {cap:?}; no wait may be longer than {:?}", Self::MAX_CAP))
        } else if base > cap {
            Err(format!("has a base of {base:?}, which is above its cap of {cap:?}"))
        } else {
            Ok(())
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = RetryPolicy::attempts(20).cap(Duration::from_secs(10));
        let waits = [1, 2, 3, 4, 5, 6, 19].map(|attempt| policy.wait_after(attempt, 1.0).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(policy.wait_after(0, 1.0), SECOND, "before the first attempt nothing has grown");
        assert_eq!(policy.wait_after(2, 0.25), SECOND / 2);
        assert_eq!(policy.wait_after(2, 0.0), Duration::ZERO);
        assert_eq!(policy.clone().factor(1.0).wait_after(19, 1.0), SECOND);
        assert_eq!(policy.base(Duration::ZERO).wait_after(19, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_policy_without_sense_is_refused_with_what_is_wrong() {
        let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
        for sound in [
            RetryPolicy::default(),
            RetryPolicy::never(),
            RetryPolicy::attempts(100).base(day).cap(day).factor(f64::MAX),
            RetryPolicy::attempts(1).base(Duration::ZERO).cap(Duration::ZERO).factor(1.0),
        ] {
            assert_eq!(sound.check(), Ok(()), "{sound:?}");
        }
        let refused = [
            RetryPolicy::attempts(0),
            RetryPolicy::attempts(101),
            RetryPolicy::default().factor(0.99),
            RetryPolicy::default().factor(f64::NAN),
            RetryPolicy::default().factor(f64::INFINITY),
            RetryPolicy::default().cap(day + SECOND),
            RetryPolicy::default().base(hour),
        ];
        insta::assert_snapshot!(refused.map(|policy| policy.check().unwrap_err()).join("\n"));
    }

    proptest! {
        #[test]
        fn no_wait_is_above_its_cap_or_shorter_than_the_one_before(
            base in any::<Duration>(), factor in any::<f64>(), cap in any::<Duration>(), attempt: u32, chance in 0.0..=1.0,
        ) {
            let policy = RetryPolicy::default().base(base).factor(factor).cap(cap);
            let longest = policy.wait_after(attempt, 1.0);
            prop_assert!(longest <= cap.min(RetryPolicy::MAX_CAP));
            prop_assert!(policy.wait_after(attempt, chance) <= longest);
            prop_assert!(policy.wait_after(attempt.saturating_add(1), 1.0) >= longest);
        }

        #[test]
        fn chance_that_is_none_makes_no_wait_above_the_cap(attempt: u32, chance in any::<f64>()) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.wait_after(attempt, chance) <= policy.cap);
        }
    }
}
