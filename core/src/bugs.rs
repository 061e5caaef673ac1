//! Bugs on purpose: what the simulator is tested with.
//!
//! Each is a mistake that somebody could make at that very place, and is there in builds with the feature `seeded-bugs` alone,
//! which nobody deploys. At most one is chosen, for the thread that sets it: a simulated world lives on one thread.
//! Without the feature, [`is`] is false and [`instead`] takes the right value, so the compiler removes every bug.

#![cfg_attr(
    not(feature = "seeded-bugs"),
    allow(unreachable_pub, reason = "this module is public with the feature alone")
)]

#[cfg(feature = "seeded-bugs")]
use std::cell::Cell;

#[cfg(feature = "seeded-bugs")]
thread_local! {
    static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Chooses the bug that this thread's code has from now on, or none.
#[cfg(feature = "seeded-bugs")]
pub fn set(bug: Option<Bug>) {
    CHOSEN.set(bug);
}

/// Whether this thread's code has the bug.
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}

/// Whether this thread's code has the bug: never, without the feature.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// What is wrong where this thread's code has the bug, and what is right elsewhere.
#[inline]
pub(crate) fn instead<T>(bug: Bug, wrong: T, right: T) -> T {
    if is(bug) { wrong } else { right }
}

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)+) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Bug {
            $($(#[$doc])* $variant,)+
        }

        #[cfg(feature = "seeded-bugs")]
        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name, as tables and the command have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// Who writes under a lease is not asked for the epoch and the owner of it: any attempt may, as long as one runs.
    NoEpochCheck => "no epoch check",
    /// A claim is made of whatever is there: what runs, and what has ended.
    ClaimUnconditional => "claim not conditional",
    /// An attempt writes its end over whatever is there.
    TerminalWriteUnconditional => "terminal write unconditional",
    /// What runs is taken back when its timer fires, though its lease was renewed.
    SweeperIgnoresLeases => "sweeper ignores leases",
    /// A retry does not count as an attempt.
    RetryLosesAttempts => "retry loses the attempt count",
    /// The end is told, and written then.
    PushBeforeWrite => "push before the terminal write",
    /// Who comes to listen is told how a request stood before, and listens to one that may have ended meanwhile.
    SubscribeGap => "subscribe leaves a gap",
    /// Requests are stored under the ids that clients choose.
    IdsUnscoped => "ids not scoped",
    /// The dead letter is sent, and the failure written then.
    DeadLetterBeforeStatus => "dead letter before status",
    /// The last report is pushed once the end is told.
    ProgressAfterTerminal => "progress after terminal",
    /// Requests are stored under user and id: the same `sub` in another tenant is taken for the same user.
    TenantForgotten => "tenant left out of the key",
    /// A renewal writes the lease's end that the claim had.
    LeaseNeverRenewed => "a lease never renewed",
    /// What nobody has claimed is looked at, and not made to appear in the stream.
    NudgeNeverMade => "a nudge never made",
    /// A frame is sent while an earlier one to the same connection is on its way.
    PushesOverlap => "pushes overlap",
    /// Everybody is taken for told once the end was sent, whatever came of it.
    DeliveryAssumed => "delivery assumed",
    /// Each attempt numbers its frames from the beginning.
    SeqBeginsAnew => "seq begins anew",
    /// An attempt that is to be retried, or goes on later, forgets that its end was asked for.
    CancelForgotten => "cancel flag ignored",
    /// An attempt takes an end that somebody else wrote for its own, whose answer was lost.
    ForeignEndTaken => "another's end taken for one's own",
    /// A request has its time to live from its beginning.
    TtlAtEnqueue => "time to live at enqueue",
}

#[cfg(all(test, feature = "seeded-bugs"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_bug_is_chosen_for_its_thread_alone() {
        set(Some(Bug::IdsUnscoped));
        assert!(is(Bug::IdsUnscoped) && !is(Bug::TenantForgotten));
        assert!(std::thread::spawn(|| Bug::ALL.iter().all(|bug| !is(*bug))).join().unwrap());
        set(None);
        assert!(!is(Bug::IdsUnscoped));
    }

    #[test]
    fn each_bug_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
