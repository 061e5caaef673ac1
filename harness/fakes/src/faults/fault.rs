//! The definition of a fault rule: effect, affected calls, frequency and strength.

use std::time::Duration;

use fastrand::Rng;

use super::call::Call;
use super::effect::Effect;
use crate::caller::Skew;

/// Fault rule: an effect, the calls to which the effect applies, and how often the effect is injected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    pub(super) call: Call,
    pub(super) effect: Effect,
    pub(super) after: u32,
    pub(super) times: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) seed: u64,
    is_varied: bool,
    name: Option<&'static str>,
}

/// Probability that a fault is injected, in units of 2⁻³²: 0 means never, 2³² means always.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rate(u64);

impl Rate {
    const CERTAIN: u64 = 1 << 32;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the product lies between 0 and 2³², and a rounding error does not matter"
    )]
    fn new(rate: f64) -> Self {
        Self((rate.clamp(0.0, 1.0) * Self::CERTAIN as f64) as u64)
    }

    /// Draws whether the fault is injected. Always draws one number, so that later draws do not depend on the rate.
    pub(super) fn draw(self, chance: &mut Rng) -> bool {
        u64::from(chance.u32(..)) < self.0
    }
}

impl Fault {
    fn new(call: Call, effect: Effect) -> Self {
        Self { call, effect, after: 0, times: None, rate: None, seed: 0, is_varied: false, name: None }
    }

    /// Throttles the call, which then has no effect.
    ///
    /// * DynamoDB: the error is `ThrottlingException`, or `ProvisionedThroughputExceededException` for a provisioned
    ///   table. A transaction is cancelled, with the throttle as cancellation reason.
    /// * `PostToConnection`: the error is `LimitExceededException` (429).
    /// * An invocation: the error is `TooManyRequestsException`.
    ///
    /// If the fault is limited to one table (see [`on`](Call::on)), a DynamoDB batch processes the entries of its
    /// other tables and returns the entries of the throttled table as unprocessed.
    #[must_use]
    pub fn throttle(call: Call) -> Self {
        Self::new(call, Effect::Throttle)
    }

    /// Fails the call with status 500 before the call takes effect. DynamoDB batches behave as with
    /// [`throttle`](Self::throttle). An invocation fails as if the function's process had crashed immediately.
    #[must_use]
    pub fn fail(call: Call) -> Self {
        Self::new(call, Effect::Fail)
    }

    /// Lets the call take effect, and then returns status 500 to the caller.
    #[must_use]
    pub fn fail_after_apply(call: Call) -> Self {
        Self::new(call, Effect::FailAfterApply)
    }

    /// Lets the call take effect, but never answers the caller.
    #[must_use]
    pub fn lose_answer(call: Call) -> Self {
        Self::new(call, Effect::LoseAnswer)
    }

    /// Delays the call's effect and answer. A delayed DynamoDB call takes effect even if its caller no longer waits.
    #[must_use]
    pub fn delay(call: Call, delay: Duration) -> Self {
        Self::new(call, Effect::Delay(delay))
    }

    /// Fails a DynamoDB write as if the write conflicted with a transaction. The error is
    /// `TransactionConflictException`, or in a transaction `TransactionCanceledException` with the reason
    /// `TransactionConflict`.
    #[must_use]
    pub fn conflict(call: Call) -> Self {
        Self::new(call, Effect::Conflict)
    }

    /// Makes a query or scan of a global index return stale data, without the writes of the last `lag`.
    #[must_use]
    pub fn stale(call: Call, lag: Duration) -> Self {
        Self::new(call, Effect::Stale(lag))
    }

    /// Answers a `PostToConnection` call to an open connection with 410 Gone.
    #[must_use]
    pub fn gone(call: Call) -> Self {
        Self::new(call, Effect::Gone)
    }

    /// Answers a `PostToConnection` call with 403 `AccessDeniedException`.
    #[must_use]
    pub fn deny(call: Call) -> Self {
        Self::new(call, Effect::Deny)
    }

    /// Delivers an event, or a batch of stream records, to the function twice, concurrently.
    #[must_use]
    pub fn duplicate(call: Call) -> Self {
        Self::new(call, Effect::Duplicate)
    }

    /// Kills the execution environment that makes the call, like SIGKILL, before the call takes effect. With
    /// [`Call::invoke`], kills the environment of the invoked function as soon as it has received its event.
    #[must_use]
    pub fn kill(call: Call) -> Self {
        Self::new(call, Effect::Kill)
    }

    /// Kills the execution environment in the middle of an invocation.
    ///
    /// The environment is killed when the invocation's future has returned `Pending` `awaits` times. The function
    /// must run in process.
    #[must_use]
    pub fn kill_midway(invocation: Call, awaits: u32) -> Self {
        Self::new(invocation, Effect::KillMidway { awaits })
    }

    /// Freezes the execution environment in the middle of an invocation, and resumes the environment after `time`.
    ///
    /// The freeze begins when the invocation's future has returned `Pending` `awaits` times. While the environment is
    /// frozen, its calls wait, and the function's timeout continues to run. The function must run in process.
    #[must_use]
    pub fn freeze(invocation: Call, awaits: u32, time: Duration) -> Self {
        Self::new(invocation, Effect::Freeze { awaits, time })
    }

    /// Freezes the execution environment in the middle of an invocation until the function's timeout.
    ///
    /// The freeze begins when the invocation's future has returned `Pending` `awaits` times. The function must run
    /// in process.
    #[must_use]
    pub fn hang(invocation: Call, awaits: u32) -> Self {
        Self::new(invocation, Effect::Hang { awaits })
    }

    /// Sets the clock of an execution environment ahead of the stage's clock by `ahead`, for the environment's
    /// lifetime.
    ///
    /// If the fault is [`varied`](Self::varied), the clock is ahead or behind by at most `ahead`. `start` selects
    /// the affected environments and must be a [`Call::init`]. The function must run in process.
    #[must_use]
    pub fn skew(start: Call, ahead: Duration) -> Self {
        Self::new(start, Effect::Skew(Skew::of(ahead)))
    }

    /// Sets the number of matching calls that pass unchanged before the fault is injected. Default: 0.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// Sets the maximum number of calls into which the fault is injected. Default: no limit.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Sets the probability, from 0 to 1, that the fault is injected into a matching call. Default: 1.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = Some(Rate::new(rate));
        self
    }

    /// Draws the fault's duration, clock skew or number of awaits at random for each hit, with the configured value
    /// as maximum. Default: the configured value itself.
    #[must_use]
    pub fn varied(mut self) -> Self {
        self.is_varied = true;
        self
    }

    /// Sets the seed of the fault's random numbers. Default: 0.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the name of the fault in [`Observation::Injected`](crate::observe::Observation::Injected). Default: the
    /// kind of effect, such as `throttle`.
    #[must_use]
    #[doc(hidden)]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name.unwrap_or_else(|| self.effect.name())
    }

    /// Returns the effect for one hit, with randomly drawn values if the fault is varied.
    pub(super) fn drawn(&self, chance: &mut Rng) -> Effect {
        if !self.is_varied {
            return self.effect;
        }
        match self.effect {
            Effect::Delay(most) => Effect::Delay(draw_duration(most, chance)),
            Effect::Stale(most) => Effect::Stale(draw_duration(most, chance)),
            Effect::KillMidway { awaits } => Effect::KillMidway { awaits: draw_awaits(awaits, chance) },
            Effect::Hang { awaits } => Effect::Hang { awaits: draw_awaits(awaits, chance) },
            Effect::Freeze { awaits, time } => {
                Effect::Freeze { awaits: draw_awaits(awaits, chance), time: draw_duration(time, chance) }
            }
            Effect::Skew(most) => Effect::Skew(most.drawn(chance)),
            Effect::Throttle
            | Effect::Fail
            | Effect::FailAfterApply
            | Effect::LoseAnswer
            | Effect::Conflict
            | Effect::Gone
            | Effect::Deny
            | Effect::Duplicate
            | Effect::Kill => self.effect,
        }
    }
}

/// Draws a duration in whole milliseconds, uniformly distributed from 0 to `most`.
fn draw_duration(most: Duration, chance: &mut Rng) -> Duration {
    Duration::from_millis(chance.u64(0..=u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
}

/// Draws a number of awaits from 0 to `most`. Each power of two is equally likely as upper bound, because most
/// invocations have few awaits and some have many.
fn draw_awaits(most: u32, chance: &mut Rng) -> u32 {
    let magnitude = chance.u32(0..=most.checked_ilog2().unwrap_or_default());
    chance.u32(0..=most.min(2_u32.saturating_pow(magnitude)))
}
