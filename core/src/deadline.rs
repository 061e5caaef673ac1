//! Time reserved before the deadline of an invocation.

use std::time::Duration;

use tokio::time::Instant;

/// Time before the invocation's deadline at which a function stops waiting and sends its reply.
pub(crate) const REPLY_MARGIN: Duration = Duration::from_millis(500);

/// Returns `moment` minus `time`, or `moment` itself if the difference cannot be represented as an `Instant`.
pub(crate) fn before(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
}
