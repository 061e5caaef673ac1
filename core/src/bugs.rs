//! Seeded bugs: deliberate mistakes in this crate. Tests choose one, and check that the fault simulator detects it.
//!
//! Each bug is a mistake that a programmer could make at that place in the code. The bugs exist only in builds with
//! the feature `seeded-bugs`, which are never deployed. A thread has at most one bug, which `set` chooses, because a
//! simulated world runs on one thread. Without the feature, [`is`] returns `false` and [`instead`] returns the right
//! value, so that the compiler removes every bug.

#![cfg_attr(
    not(feature = "seeded-bugs"),
    allow(unreachable_pub, reason = "this module is public only with the feature `seeded-bugs`")
)]

#[cfg(feature = "seeded-bugs")]
use std::cell::Cell;

#[cfg(feature = "seeded-bugs")]
thread_local! {
    static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Chooses the bug for code on the current thread; `None` switches the bug off.
#[cfg(feature = "seeded-bugs")]
pub fn set(bug: Option<Bug>) {
    CHOSEN.set(bug);
}

/// Returns whether code on the current thread has this bug.
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}

/// Returns `false`, because builds without the feature `seeded-bugs` have no bugs.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Returns `wrong` if code on the current thread has this bug, and `right` otherwise.
#[inline]
pub(crate) fn instead<T>(bug: Bug, wrong: T, right: T) -> T {
    if is(bug) { wrong } else { right }
}

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)+) => {
        /// A deliberate mistake in the code of this crate.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Bug {
            $($(#[$doc])* $variant,)+
        }

        #[cfg(feature = "seeded-bugs")]
        impl Bug {
            /// All seeded bugs.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the bug's name, as the table of the simulator's tests prints it.
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
    /// A write under a lease does not check the epoch and the owner token. Any attempt may write while the request is
    /// PROCESSING.
    NoEpochCheck => "no epoch check",
    /// A claim does not check the status. It also succeeds for running and terminal requests.
    ClaimUnconditional => "claim not conditional",
    /// A terminal write does not check the stored item, and overwrites any status.
    TerminalWriteUnconditional => "terminal write unconditional",
    /// The sweeper reclaims a running request when its timer is due, although its lease was renewed.
    SweeperIgnoresLeases => "sweeper ignores leases",
    /// A retry resets the request's attempt count to zero.
    RetryLosesAttempts => "retry loses the attempt count",
    /// The terminal frame is pushed before the terminal status is written.
    PushBeforeWrite => "push before the terminal write",
    /// A subscriber receives a snapshot from before its subscription. If the request became terminal in between, the
    /// subscriber misses the terminal frame.
    SubscribeGap => "subscribe leaves a gap",
    /// The key of a request is only the id that the client chose, without tenant and user.
    IdsUnscoped => "ids not scoped",
    /// The dead letter is sent before the status FAILED is written.
    DeadLetterBeforeStatus => "dead letter before status",
    /// The last progress frame is pushed after the terminal frame.
    ProgressAfterTerminal => "progress after terminal",
    /// The key of a request is user and id, without the tenant. The same `sub` in another tenant counts as the same
    /// user.
    TenantForgotten => "tenant left out of the key",
    /// A renewal writes the expiry that the lease already had from the claim.
    LeaseNeverRenewed => "lease never renewed",
    /// The sweeper counts an unclaimed request as nudged, but does not write it, so that the stream does not deliver
    /// it again.
    NudgeNeverMade => "nudge never made",
    /// A frame is sent to a connection while an earlier frame to the same connection is still in flight.
    PushesOverlap => "pushes overlap",
    /// Every subscriber counts as reached once the terminal frame was sent, even if sending failed.
    DeliveryAssumed => "delivery assumed",
    /// The sequence numbers of each attempt start from zero, instead of from the attempt's epoch.
    SeqRestarts => "seq restarts with each attempt",
    /// The write for a retry or a continuation does not check whether the user has requested a cancellation.
    CancelForgotten => "cancel flag ignored",
    /// An attempt mistakes a terminal status that another writer stored for its own write whose response was lost.
    ForeignEndingTaken => "foreign ending taken as own",
    /// A request gets its TTL when it is queued, so that it can expire before it is terminal.
    TtlAtEnqueue => "time to live at enqueue",
}

#[cfg(all(test, feature = "seeded-bugs"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeded_bug_affects_only_the_thread_that_chose_it() {
        set(Some(Bug::IdsUnscoped));
        assert!(is(Bug::IdsUnscoped) && !is(Bug::TenantForgotten));
        assert!(std::thread::spawn(|| Bug::ALL.iter().all(|bug| !is(*bug))).join().unwrap());
        set(None);
        assert!(!is(Bug::IdsUnscoped));
    }

    #[test]
    fn seeded_bugs_have_distinct_names() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
