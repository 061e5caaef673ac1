//! When items with a time to live need be looked at again.

/// What the last sweep has left: as long as nothing is written, no item need be looked at again before one is due.
#[derive(Debug)]
pub(super) struct LastSweep {
    pub(super) changes: u64,
    pub(super) from_secs: u64,
    pub(super) next_secs: Option<u64>,
}

impl LastSweep {
    /// Whether no item can be due.
    pub(super) fn holds(&self, changes: u64, now_secs: u64) -> bool {
        // A clock that was set back says nothing about what is due.
        self.changes == changes
            && now_secs >= self.from_secs
            && self.next_secs.is_none_or(|next_secs| now_secs < next_secs)
    }
}
