//! One fault: what goes wrong, with which calls, how often and how hard.

use std::time::Duration;

use fastrand::Rng;

use super::call::Call;
use super::effect::Effect;
use crate::caller::Skew;

/// One fault: what goes wrong, with which calls, and how often.
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

/// How likely it is that a fault strikes, out of 2³².
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rate(u64);

impl Rate {
    const CERTAIN: u64 = 1 << 32;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "it lies between 0 and 2³², and need not be exact beyond that"
    )]
    fn new(rate: f64) -> Self {
        Self((rate.clamp(0.0, 1.0) * Self::CERTAIN as f64) as u64)
    }

    /// Draws each time, so that what is drawn next does not hang on the rate.
    pub(super) fn strikes(self, chance: &mut Rng) -> bool {
        u64::from(chance.u32(..)) < self.0
    }
}

impl Fault {
    fn new(call: Call, effect: Effect) -> Self {
        Self { call, effect, after: 0, times: None, rate: None, seed: 0, is_varied: false, name: None }
    }

    /// The call is refused for its rate, and has no effect: `ThrottlingException` of DynamoDB (of a provisioned table
    /// `ProvisionedThroughputExceededException`, of a transaction a reason why it is cancelled),
    /// `LimitExceededException` (429) of a post, `TooManyRequestsException` of an invocation.
    ///
    /// A batch of DynamoDB that names other tables than that which the fault is [`on`](Call::on) does the rest, and
    /// says what it left unprocessed.
    #[must_use]
    pub fn throttle(call: Call) -> Self {
        Self::new(call, Effect::Throttle)
    }

    /// The call fails with status 500, and has no effect; of a batch, as with [`throttle`](Self::throttle). An invocation
    /// fails as if its process had crashed at once.
    #[must_use]
    pub fn fail(call: Call) -> Self {
        Self::new(call, Effect::Fail)
    }

    /// The call takes effect, and its caller gets status 500.
    #[must_use]
    pub fn fail_after_apply(call: Call) -> Self {
        Self::new(call, Effect::FailAfterApply)
    }

    /// The call takes effect, and its caller never gets an answer.
    #[must_use]
    pub fn lose_answer(call: Call) -> Self {
        Self::new(call, Effect::LoseAnswer)
    }

    /// The call takes effect this much later, whether or not its caller still waits then, and so does everything that
    /// waits for it.
    #[must_use]
    pub fn delay(call: Call, delay: Duration) -> Self {
        Self::new(call, Effect::Delay(delay))
    }

    /// The write meets a transaction: `TransactionConflictException`, or within a transaction
    /// `TransactionCanceledException` with the reason `TransactionConflict`.
    #[must_use]
    pub fn conflict(call: Call) -> Self {
        Self::new(call, Effect::Conflict)
    }

    /// The query or scan of an index does not see what was written within the last `lag`.
    #[must_use]
    pub fn stale(call: Call, lag: Duration) -> Self {
        Self::new(call, Effect::Stale(lag))
    }

    /// The post finds its connection gone (410), though it is open.
    #[must_use]
    pub fn gone(call: Call) -> Self {
        Self::new(call, Effect::Gone)
    }

    /// The caller may not post: 403 `AccessDeniedException`.
    #[must_use]
    pub fn deny(call: Call) -> Self {
        Self::new(call, Effect::Deny)
    }

    /// The records of a stream that were read are delivered twice.
    #[must_use]
    pub fn duplicate(call: Call) -> Self {
        Self::new(call, Effect::Duplicate)
    }

    /// The function that makes the call dies before the call has an effect, as by SIGKILL. Of a [`Call::invoke`], the
    /// function that is invoked dies as soon as it has its event.
    #[must_use]
    pub fn kill(call: Call) -> Self {
        Self::new(call, Effect::Kill)
    }

    /// The function dies at an await of its own amid the invocation, after it has come to `awaits` of them. It must run in
    /// process.
    #[must_use]
    pub fn kill_midway(invocation: Call, awaits: u32) -> Self {
        Self::new(invocation, Effect::KillMidway { awaits })
    }

    /// The function stands still for this long amid the invocation, after it has come to `awaits` of its awaits, and goes on: its
    /// calls as well wait for it meanwhile, and its time runs out. It must run in process.
    #[must_use]
    pub fn freeze(invocation: Call, awaits: u32, time: Duration) -> Self {
        Self::new(invocation, Effect::Freeze { awaits, time })
    }

    /// The function stands still amid the invocation, after it has come to `awaits` of its awaits, until its time is up. It must
    /// run in process.
    #[must_use]
    pub fn hang(invocation: Call, awaits: u32) -> Self {
        Self::new(invocation, Effect::Hang { awaits })
    }

    /// The clock of an environment whose [start](Call::init) this is goes this much before the stage's for as long as it lives;
    /// [varied](Self::varied), up to this much before or after it. It must run in process.
    #[must_use]
    pub fn skew(start: Call, off: Duration) -> Self {
        Self::new(start, Effect::Skew(Skew::of(off)))
    }

    /// Lets this many matching calls pass first.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// Happens this often at most. Default: always.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Strikes each time with this probability, from 0 to 1. Default: always.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = Some(Rate::new(rate));
        self
    }

    /// Each time, draws how long it lasts, how far it is off, or at which await it strikes, up to what was given.
    #[must_use]
    pub fn varied(mut self) -> Self {
        self.is_varied = true;
        self
    }

    /// What all that is left to chance comes from. Default: 0.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The name under which an observer hears of it. Default: the kind of fault, such as `throttle`.
    #[must_use]
    #[doc(hidden)]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name.unwrap_or_else(|| self.effect.name())
    }

    /// The effect as it is this time.
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

/// Whole milliseconds, of which all are as likely.
fn draw_duration(most: Duration, chance: &mut Rng) -> Duration {
    Duration::from_millis(chance.u64(0..=u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
}

/// As likely in each order of magnitude: most invocations have few awaits, and some have many.
fn draw_awaits(most: u32, chance: &mut Rng) -> u32 {
    let magnitude = chance.u32(0..=most.checked_ilog2().unwrap_or_default());
    chance.u32(0..=most.min(2_u32.saturating_pow(magnitude)))
}
