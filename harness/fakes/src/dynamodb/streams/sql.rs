//! Numbers and moments as SQLite keeps them.

use std::time::Duration;

use streamer::ports::Timestamp;

/// How long a stream keeps its records, and how long a disabled stream can still be read.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// What was written at this moment or before has been kept for long enough.
pub(super) fn horizon(now: Timestamp) -> i64 {
    let retention_ms = i64::try_from(RETENTION.as_millis()).unwrap_or(i64::MAX);
    to_sql(now.as_millis()).saturating_sub(retention_ms)
}

/// SQLite's integers have a sign; ours are counts that never come near its bound.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
