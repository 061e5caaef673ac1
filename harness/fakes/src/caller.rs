//! The caller of a fake: one execution environment of a function, which faults can freeze or kill.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use streamer::ports::Timestamp;

use crate::watch;

/// Handle to one execution environment of a function whose code runs in this process. Fakes use the handle to identify
/// the caller of an operation.
///
/// While the environment is frozen, the environment's calls wait. Once the environment is [killed](Self::kill), no
/// further call of the environment takes effect or returns, even if tasks of the environment still run in this
/// process. All clones refer to the same environment.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

/// Formats the caller as the function's name and the environment's number, such as `Processor#7`.
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
    /// Creates a handle to a running environment of `function`, with number 0, version 1 and no clock skew.
    #[must_use]
    pub fn new(function: impl Into<String>) -> Self {
        Self::numbered(function, 0, 1, Skew::default())
    }

    /// Creates a handle to a running environment of `function`.
    ///
    /// `number` is 1 for the first environment that the stage starts, 2 for the second, and so on. `version` is the
    /// version of the function's code, and `skew` is the error of the environment's clock.
    #[must_use]
    #[doc(hidden)]
    pub fn numbered(function: impl Into<String>, number: u64, version: u32, skew: Skew) -> Self {
        let (function, state) = (function.into(), watch::Sender::new(State::Running));
        Self(Arc::new(Inner { function, number, version, skew, state }))
    }

    /// Returns the environment's number: 1 for the first environment that the stage started, 2 for the second, and
    /// so on. The number is 0 if no stage started the environment.
    #[must_use]
    #[doc(hidden)]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Returns the difference between the environment's clock and the stage's clock.
    #[must_use]
    #[doc(hidden)]
    pub fn skew(&self) -> Skew {
        self.0.skew
    }

    /// Returns whether the environment was killed.
    pub(crate) fn is_killed(&self) -> bool {
        *self.0.state.borrow() == State::Dead
    }

    /// Returns the name of the function that runs in this environment.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// Returns the version of the function that the environment runs: 1 at first, increased by one with each
    /// deployment.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Kills the environment, like SIGKILL kills a process.
    ///
    /// This method only sets the state. The task that runs the environment waits for [`killed`](Self::killed) and
    /// then drops the environment.
    pub fn kill(&self) {
        self.0.state.send_replace(State::Dead);
    }

    /// Waits until the environment is killed.
    pub async fn killed(&self) {
        // The wait cannot fail, because `self` holds a sender of the channel.
        let _ = self.0.state.subscribe().wait_for(|state| *state == State::Dead).await;
    }

    /// Freezes the environment: its calls wait until [`thaw`](Self::thaw). Has no effect on a killed environment.
    pub(crate) fn freeze(&self) {
        self.change_state(State::Running, State::Frozen);
    }

    /// Resumes a frozen environment. Has no effect on a running or killed environment.
    pub(crate) fn thaw(&self) {
        self.change_state(State::Frozen, State::Running);
    }

    /// Sets the state to `to` if the current state is `from`.
    fn change_state(&self, from: State, to: State) {
        self.0.state.send_if_modified(|state| {
            let applies = *state == from;
            if applies {
                *state = to;
            }
            applies
        });
    }

    /// Waits until the environment is running: returns immediately for a running environment, after the thaw for a
    /// frozen environment, and never for a killed environment.
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

/// Difference in milliseconds between an environment's clock and the stage's clock; negative if the environment's
/// clock is behind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[doc(hidden)]
pub struct Skew(i64);

impl Skew {
    /// Returns the skew of a clock that is ahead of the stage's clock by `ahead`.
    pub(crate) fn of(ahead: Duration) -> Self {
        Self(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns the time that the skewed clock shows when the stage's clock shows `now`.
    #[must_use]
    pub fn applied(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.0))
    }

    /// Draws a random skew, positive or negative, whose absolute value is at most that of `self`.
    pub(crate) fn drawn(self, chance: &mut Rng) -> Self {
        Self(chance.i64(-self.0.abs()..=self.0.abs()))
    }
}
