//! The time limits before the deadline of an invocation.

use std::time::Duration;

use tokio::time::Instant;

/// How long before the invocation's deadline a function stops waiting and responds.
pub(crate) const REPLY_MARGIN: Duration = Duration::from_millis(500);

/// Returns the instant `time` before `moment`, or `moment` itself if that instant cannot be represented.
pub(crate) fn before(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
}
