//! Who calls a fake: one execution environment of a function, which may be frozen or killed.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use streamer::ports::Timestamp;

use crate::watch;

/// One execution environment of a function that runs in process, and the identity of the calls that it makes.
///
/// While an environment is frozen, its calls wait. Once it is [killed](Self::kill), none of its calls takes effect or is answered,
/// even if tasks of it still run in this process. All clones are one environment.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

/// As `Processor#7`: the function, and which of the stage's environments it is.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0.function, self.0.number)
    }
}

#[derive(Debug)]
struct Inner {
    function: String,
    number: u64,
    version: u32,
    skew: Skew,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Running,
    Frozen,
    Dead,
}

impl Caller {
    /// A new environment of `function`.
    #[must_use]
    pub fn new(function: impl Into<String>) -> Self {
        Self::numbered(function, 0, 1, Skew::default())
    }

    /// The environment of `function` that was started as the stage's `number`th, with this version of the code, and a clock that
    /// is off by `skew`.
    #[must_use]
    #[doc(hidden)]
    pub fn numbered(function: impl Into<String>, number: u64, version: u32, skew: Skew) -> Self {
        let (function, state) = (function.into(), watch::Sender::new(State::Running));
        Self(Arc::new(Inner { function, number, version, skew, state }))
    }

    /// How many environments the stage had started, this one included, when it started this one; 0 if no stage started it.
    #[must_use]
    #[doc(hidden)]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// How far the environment's clock is off from the stage's.
    #[must_use]
    #[doc(hidden)]
    pub fn skew(&self) -> Skew {
        self.0.skew
    }

    /// Whether the environment was killed.
    pub(crate) fn is_killed(&self) -> bool {
        *self.0.state.borrow() == State::Dead
    }

    /// The function's name.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// Which version of the function it runs: 1, and after each deploy one more.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Kills the environment, as SIGKILL does. What runs the environment waits for [`killed`](Self::killed), and drops it.
    pub fn kill(&self) {
        self.0.state.send_replace(State::Dead);
    }

    /// Waits until the environment is killed.
    pub async fn killed(&self) {
        // The sender lives as long as we do.
        let _ = self.0.state.subscribe().wait_for(|state| *state == State::Dead).await;
    }

    /// Freezes the environment and its calls until it is [thawed](Self::thaw). Does nothing to one that was killed.
    pub(crate) fn freeze(&self) {
        self.become_from(State::Running, State::Frozen);
    }

    /// Lets a frozen environment go on.
    pub(crate) fn thaw(&self) {
        self.become_from(State::Frozen, State::Running);
    }

    fn become_from(&self, from: State, to: State) {
        self.0.state.send_if_modified(|state| {
            let is_so = *state == from;
            if is_so {
                *state = to;
            }
            is_so
        });
    }

    /// Waits until the environment runs: not at all if it is neither frozen nor killed, and for ever if it was killed.
    pub(crate) async fn running(&self) {
        if *self.0.state.borrow() == State::Running {
            return;
        }
        let mut state = self.0.state.subscribe();
        match state.wait_for(|state| *state != State::Frozen).await.map(|state| *state) {
            Ok(State::Running) => {}
            Ok(State::Frozen | State::Dead) | Err(_) => pending().await,
        }
    }
}

/// How far a clock is ahead of the stage's, in milliseconds; negative if it is behind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[doc(hidden)]
pub struct Skew(i64);

impl Skew {
    pub(crate) fn of(off: Duration) -> Self {
        Self(i64::try_from(off.as_millis()).unwrap_or(i64::MAX))
    }

    /// The time on such a clock when the stage's clock shows `now`.
    #[must_use]
    pub fn applied(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.0))
    }

    /// A clock that is off by at most as much as this one, before or after the stage's.
    pub(crate) fn drawn(self, chance: &mut Rng) -> Self {
        Self(chance.i64(-self.0.abs()..=self.0.abs()))
    }
}
