//! Converts numbers and times to and from SQLite's integers.

use std::time::Duration;

use streamer::ports::Timestamp;

/// Time for which a stream keeps a record, and for which a disabled stream can still be read.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the time 24 hours before `now`, in epoch milliseconds. Records written at this time or earlier are dropped.
pub(super) fn horizon(now: Timestamp) -> i64 {
    let retention_ms = i64::try_from(RETENTION.as_millis()).unwrap_or(i64::MAX);
    to_sql(now.as_millis()).saturating_sub(retention_ms)
}

/// Converts a number to SQLite's signed integers. All converted numbers are counts and times far below the limit.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
