//! Who calls, and whether it can.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use streamer::ports::Timestamp;

use crate::watch;

/// One execution environment of a function that runs in process, as the calls that it makes name it.
///
/// Its calls are a process's: once it is [killed](Self::kill), none takes effect any more, and none is answered, whatever of it is
/// still left running here.
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

    /// The stage's environment of this number, with this version of the function, and a clock that is off by this much.
    pub(crate) fn numbered(function: impl Into<String>, number: u64, version: u32, skew: Skew) -> Self {
        let (function, state) = (function.into(), watch::Sender::new(State::Running));
        Self(Arc::new(Inner { function, number, version, skew, state }))
    }

    /// Which of the stage's environments it is, in the order in which they were started.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// How far its clock is off.
    pub(crate) fn skew(&self) -> Skew {
        self.0.skew
    }

    /// Whether the environment is dead.
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

    /// Has the environment die: whoever runs it waits for [`killed`](Self::killed), and drops what it runs.
    pub fn kill(&self) {
        self.0.state.send_replace(State::Dead);
    }

    /// Waits until the environment is killed.
    pub async fn killed(&self) {
        // The sender lives as long as we do.
        let _ = self.0.state.subscribe().wait_for(|state| *state == State::Dead).await;
    }

    /// Has the environment stand still, with its calls, until it [thaws](Self::thaw).
    pub(crate) fn freeze(&self) {
        self.become_from(State::Running, State::Frozen);
    }

    /// Has the environment go on.
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

    /// Waits until the environment is at work: at once if it is, and for ever if it is dead.
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

/// How far a clock is before the stage's, in milliseconds; it is behind where this is below nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Skew(i64);

impl Skew {
    pub(crate) fn of(off: Duration) -> Self {
        Self(i64::try_from(off.as_millis()).unwrap_or(i64::MAX))
    }

    /// What such a clock shows now.
    pub(crate) fn applied(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.0))
    }

    /// A clock that is off by at most as much as this one, before or after the stage's.
    pub(crate) fn drawn(self, chance: &mut Rng) -> Self {
        Self(chance.i64(-self.0.abs()..=self.0.abs()))
    }
}
