//! Seeded bugs: deliberate mistakes in this crate. A test switches one bug on, and checks that the simulator detects
//! it.
//!
//! Each bug is a mistake that a programmer could plausibly make. The bugs exist only in builds with the feature
//! `seeded-bugs`, which are never deployed. Without the feature, [`is`] returns `false` and [`instead`] returns the
//! correct value, so the compiler removes every bug. With the feature, `set` switches on at most one bug per thread.
//! Each simulated world runs on a thread of its own.

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

/// Switches on one bug for the code on the current thread. `None` switches all bugs off.
#[cfg(feature = "seeded-bugs")]
pub fn set(bug: Option<Bug>) {
    CHOSEN.set(bug);
}

/// Returns `true` if this bug is switched on for the code on the current thread.
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}

/// Returns `false`, because builds without the feature `seeded-bugs` contain no seeded bugs.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Returns `wrong` if this bug is switched on for the code on the current thread, and `right` otherwise.
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

            /// Returns the bug's name for the output of the simulator's tests, such as `lease never renewed`.
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
    /// An attempt's writes check neither the epoch nor the owner token, which identify the current lease. So an
    /// attempt that has lost its lease can still write while the request is PROCESSING.
    NoEpochCheck => "no epoch check",
    /// A claim does not check the request's status, so it also succeeds for running and terminal requests.
    ClaimUnconditional => "claim not conditional",
    /// A terminal write does not check the stored request, so it overwrites any status.
    TerminalWriteUnconditional => "terminal write unconditional",
    /// The sweeper reclaims a running request whose timer has fired, although the request's lease has not expired.
    SweeperIgnoresLeases => "sweeper ignores leases",
    /// A retry resets the request's attempt count to zero.
    RetryLosesAttempts => "retry loses the attempt count",
    /// The terminal frame is pushed before the terminal status is written.
    PushBeforeWrite => "push before the terminal write",
    /// A new subscriber receives a snapshot that was read before the subscription was written. If the request becomes
    /// terminal between this read and this write, the subscriber never receives the terminal frame.
    SubscribeGap => "subscribe leaves a gap",
    /// The key of a request consists only of the id that the client chose, without tenant and user.
    IdsUnscoped => "ids not scoped",
    /// The dead letter is sent before the status FAILED is written.
    DeadLetterBeforeStatus => "dead letter before status",
    /// The last progress frame is pushed after the terminal frame.
    ProgressAfterTerminal => "progress after terminal",
    /// The key of a request consists of user and id, without the tenant. So users with the same `sub` in two tenants
    /// share their requests.
    TenantForgotten => "tenant left out of the key",
    /// A lease renewal writes the current expiry of the lease instead of a later one.
    LeaseNeverRenewed => "lease never renewed",
    /// The sweeper skips the nudge (the write that makes the stream deliver an unclaimed request again), but counts
    /// the request as nudged.
    NudgeNeverMade => "nudge never made",
    /// A frame is sent to a connection while an earlier frame to the same connection is still in flight.
    PushesOverlap => "pushes overlap",
    /// The terminal frame counts as delivered to every subscriber, even to those for which the push failed.
    DeliveryAssumed => "delivery assumed",
    /// The frames of each attempt are numbered from zero, so that the sequence numbers do not rise across attempts.
    SeqRestarts => "seq restarts with each attempt",
    /// The write that schedules a retry or a continuation ignores that the user has requested a cancel.
    CancelForgotten => "cancel flag ignored",
    /// An attempt that received no response to its terminal write treats any stored terminal status as the result of
    /// this write, even if another attempt has written the status.
    ForeignEndingTaken => "foreign ending taken as own",
    /// A request's TTL is set when the request is queued, so DynamoDB may delete the request before it is terminal.
    TtlAtEnqueue => "time to live at enqueue",
}

#[cfg(all(test, feature = "seeded-bugs"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeded_bug_affects_only_the_thread_that_enabled_the_bug() {
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
