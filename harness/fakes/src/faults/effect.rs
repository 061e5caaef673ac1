//! Effects that a fault can have on a call or an invocation.

use std::time::Duration;

use crate::caller::{Caller, Skew};

/// Effect of a fault. A fake skips rules whose effect is impossible for the fake's calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Throttle,
    Fail,
    FailAfterApply,
    LoseAnswer,
    Delay(Duration),
    Conflict,
    Stale(Duration),
    Gone,
    Deny,
    Duplicate,
    Kill,
    KillMidway { awaits: u32 },
    Freeze { awaits: u32, time: Duration },
    Hang { awaits: u32 },
    Skew(Skew),
}

impl Effect {
    /// Returns whether the effect is possible for a call of any service. `Kill` needs a known caller, because only a
    /// function that runs in process can be killed through its [`Caller`].
    pub(crate) const fn applies_to_any_call(self, caller: Option<&Caller>) -> bool {
        match self {
            Self::Throttle | Self::Fail | Self::FailAfterApply | Self::LoseAnswer | Self::Delay(_) => true,
            Self::Kill => caller.is_some(),
            Self::Conflict
            | Self::Stale(_)
            | Self::Gone
            | Self::Deny
            | Self::Duplicate
            | Self::KillMidway { .. }
            | Self::Freeze { .. }
            | Self::Hang { .. }
            | Self::Skew(_) => false,
        }
    }

    pub(super) const fn is_delay(self) -> bool {
        matches!(self, Self::Delay(_))
    }

    /// Returns whether the effect takes place in the middle of an invocation. The invocation may end before the
    /// effect.
    pub(crate) const fn is_midway(self) -> bool {
        matches!(self, Self::KillMidway { .. } | Self::Freeze { .. } | Self::Hang { .. })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Fail => "fail",
            Self::FailAfterApply => "fail_after_apply",
            Self::LoseAnswer => "lose_answer",
            Self::Delay(_) => "delay",
            Self::Conflict => "conflict",
            Self::Stale(_) => "stale",
            Self::Gone => "gone",
            Self::Deny => "deny",
            Self::Duplicate => "duplicate",
            Self::Kill => "kill",
            Self::KillMidway { .. } => "kill_midway",
            Self::Freeze { .. } => "freeze",
            Self::Hang { .. } => "hang",
            Self::Skew(_) => "skew",
        }
    }
}
