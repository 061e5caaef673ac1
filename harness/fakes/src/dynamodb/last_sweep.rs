//! Remembers the last time-to-live sweep, so that the next sweep reads the items only if an item may be due.

/// Result of the last complete time-to-live sweep. Until a row is written, no item is due before `next_secs`.
#[derive(Debug)]
pub(super) struct LastSweep {
    /// The engine's count of written rows at the beginning of the sweep.
    pub(super) changes: u64,
    /// Time of the sweep, in epoch seconds.
    pub(super) swept_secs: u64,
    /// Earliest time at which a remaining item is due, in epoch seconds; `None` if no remaining item expires.
    pub(super) next_secs: Option<u64>,
}

impl LastSweep {
    /// Returns `true` if the last sweep proves that no item is due now. `changes` is the engine's current count of
    /// written rows, and `now_secs` is the current time in epoch seconds.
    pub(super) fn rules_out_due_items(&self, changes: u64, now_secs: u64) -> bool {
        // The result of the sweep is not valid for times before the sweep, which occur if the clock was set back.
        self.changes == changes
            && now_secs >= self.swept_secs
            && self.next_secs.is_none_or(|next_secs| now_secs < next_secs)
    }
}
