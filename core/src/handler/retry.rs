use std::time::Duration;

/// Number of attempts of a queued request, and the waits between them.
///
/// After an error of the handler, the [`HandlerError`](super::HandlerError) decides whether the request is retried.
/// After a timeout or a panic, the policy decides. If the process of an invocation dies, each request that was
/// running in the process has used up one attempt. Such a request is retried while attempts are left.
///
/// The wait before attempt `n + 1` is random between zero and `base · factor^(n − 1)`, but at most `cap` (exponential
/// backoff with full jitter). If a number in the policy is out of bounds, the registration of the handler fails with
/// [`RegisterError::RetryPolicy`](crate::app::RegisterError::RetryPolicy).
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
    /// Maximum number of attempts of a request, including the first attempt. From 1 to 100, default 3.
    pub max_attempts: u32,
    /// Maximum wait before the second attempt. At most `cap`, default 1 s.
    pub base: Duration,
    /// Factor by which the maximum wait grows from attempt to attempt. At least 1, default 2.
    pub factor: f64,
    /// Upper limit of every wait before an attempt. At most 24 h, default 5 min.
    pub cap: Duration,
    /// Whether a request is retried after an attempt that timed out. Default `true`.
    ///
    /// Exception: a request that times out because an invocation of the processor ends is retried even if this field
    /// is `false`. The reason is that the request shared the invocation with other requests. The retry runs alone in
    /// an invocation of the worker.
    pub retries_timeouts: bool,
    /// Whether a request is retried after an attempt that panicked. Default `true`.
    pub retries_panics: bool,
}

impl RetryPolicy {
    /// Upper bound of [`max_attempts`](Self::max_attempts).
    pub const MAX_ATTEMPTS: u32 = 100;
    /// Upper bound of [`cap`](Self::cap): 24 hours. No wait before an attempt is longer.
    pub const MAX_CAP: Duration = Duration::from_hours(24);

    /// Creates a policy that allows a single attempt, so that requests are never retried.
    #[must_use]
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// Creates a policy that allows `max_attempts` attempts, including the first attempt, and has default values
    /// otherwise.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// Sets the maximum wait before the second attempt.
    #[must_use]
    pub fn base(self, base: Duration) -> Self {
        Self { base, ..self }
    }

    /// Sets the factor by which the maximum wait grows from attempt to attempt.
    #[must_use]
    pub fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// Sets the upper limit of every wait before an attempt.
    #[must_use]
    pub fn cap(self, cap: Duration) -> Self {
        Self { cap, ..self }
    }

    /// Disables retries after an attempt that timed out.
    #[must_use]
    pub fn without_timeouts(self) -> Self {
        Self { retries_timeouts: false, ..self }
    }

    /// Disables retries after an attempt that panicked.
    #[must_use]
    pub fn without_panics(self) -> Self {
        Self { retries_panics: false, ..self }
    }

    /// Returns the wait between a failed attempt and the next one. `attempt` is the number of the failed
    /// attempt, from 1.
    ///
    /// The result is the maximum wait multiplied by `chance`, a random number from 0 to 1.
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

    /// Validates the numbers in the policy. An error is the end of a sentence that begins with "the retry policy",
    /// such as `allows 0 attempts`.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { max_attempts, base, factor, cap, .. } = *self;
        if !(1..=Self::MAX_ATTEMPTS).contains(&max_attempts) {
            Err(format!(
                "allows {max_attempts} attempts; the number must be from 1 to {}",
                Self::MAX_ATTEMPTS
            ))
        } else if !(factor.is_finite() && factor >= 1.0) {
            Err(format!("has the factor {factor}; the factor must be a finite number of at least 1"))
        } else if cap > Self::MAX_CAP {
            Err(format!("has a cap of {cap:?}; the cap must be at most {:?}", Self::MAX_CAP))
        } else if base > cap {
            Err(format!("has a base of {base:?}; the base must not exceed the cap of {cap:?}"))
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
    fn retry_wait_doubles_up_to_the_cap() {
        let policy = RetryPolicy::attempts(20).cap(Duration::from_secs(10));
        let waits = [1, 2, 3, 4, 5, 6, 19].map(|attempt| policy.wait_after(attempt, 1.0).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(
            policy.wait_after(0, 1.0),
            SECOND,
            "the maximum wait after attempt 0 equals the maximum wait after attempt 1"
        );
        assert_eq!(policy.wait_after(2, 0.25), SECOND / 2);
        assert_eq!(policy.wait_after(2, 0.0), Duration::ZERO);
        assert_eq!(policy.clone().factor(1.0).wait_after(19, 1.0), SECOND);
        assert_eq!(policy.base(Duration::ZERO).wait_after(19, 1.0), Duration::ZERO);
    }

    #[test]
    fn invalid_retry_policy_is_rejected_with_the_reason() {
        let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
        for valid in [
            RetryPolicy::default(),
            RetryPolicy::never(),
            RetryPolicy::attempts(100).base(day).cap(day).factor(f64::MAX),
            RetryPolicy::attempts(1).base(Duration::ZERO).cap(Duration::ZERO).factor(1.0),
        ] {
            assert_eq!(valid.check(), Ok(()), "{valid:?}");
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
        fn maximum_retry_wait_never_decreases_and_never_exceeds_the_cap(
            base in any::<Duration>(), factor in any::<f64>(), cap in any::<Duration>(), attempt: u32, chance in 0.0..=1.0,
        ) {
            let policy = RetryPolicy::default().base(base).factor(factor).cap(cap);
            let longest = policy.wait_after(attempt, 1.0);
            prop_assert!(longest <= cap.min(RetryPolicy::MAX_CAP));
            prop_assert!(policy.wait_after(attempt, chance) <= longest);
            prop_assert!(policy.wait_after(attempt.saturating_add(1), 1.0) >= longest);
        }

        #[test]
        fn retry_wait_never_exceeds_the_cap_even_if_chance_is_outside_0_to_1(attempt: u32, chance in any::<f64>()) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.wait_after(attempt, chance) <= policy.cap);
        }
    }
}
