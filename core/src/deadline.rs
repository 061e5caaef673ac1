//! The end of an invocation, and what has to be over before it.

use std::time::Duration;

use tokio::time::Instant;

/// How long before its invocation's end a function stops waiting and answers.
pub(crate) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// The moment that much `time` before another.
pub(crate) fn before(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
}
