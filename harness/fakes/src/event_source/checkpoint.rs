//! How far a shard is done, when its records end out of order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::source::RecordSource;

/// The records of a shard that were read and are not yet behind its checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    shard: String,
    source: Arc<dyn RecordSource>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// The position of the first of `records`.
    base: usize,
    /// Each with the number of its deliveries that have not ended.
    records: VecDeque<(String, usize)>,
    /// The shard is gone, and its checkpoint with it.
    gone: bool,
}

impl Window {
    fn deliveries(&mut self, position: usize) -> Option<&mut usize> {
        let index = position.checked_sub(self.base)?;
        self.records.get_mut(index).map(|(_, deliveries)| deliveries)
    }
}

impl Checkpoint {
    pub(super) fn new(shard: String, source: Arc<dyn RecordSource>) -> Self {
        Self { shard, source, window: Mutex::default() }
    }

    /// Takes note of a record that was read, and gives it a position.
    pub(super) fn add(&self, sequence_number: &str) -> usize {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.records.push_back((sequence_number.to_owned(), 1));
        window.base + window.records.len() - 1
    }

    /// How many records wait to get behind the checkpoint.
    pub(super) fn outstanding(&self) -> usize {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).records.len()
    }

    /// Takes note that records are delivered once more.
    pub(super) fn again(&self, positions: impl IntoIterator<Item = usize>) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions {
            if let Some(deliveries) = window.deliveries(position) {
                *deliveries += 1;
            }
        }
    }

    /// Keeps no checkpoint any more.
    pub(super) fn forget(&self) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).gone = true;
    }

    /// Takes note that a delivery of these records has ended, and moves the checkpoint past all records before which nothing is unfinished.
    pub(super) fn done(&self, positions: impl IntoIterator<Item = usize>) {
        // Saved under the lock: a later checkpoint must not be overtaken by an earlier one.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions {
            if let Some(deliveries) = window.deliveries(position) {
                *deliveries = deliveries.saturating_sub(1);
            }
        }
        let mut reached = None;
        while let Some((sequence_number, _)) = window.records.pop_front_if(|(_, deliveries)| *deliveries == 0)
        {
            window.base += 1;
            reached = Some(sequence_number);
        }
        if let Some(sequence_number) = reached
            && !window.gone
            && let Err(error) = self.source.save_checkpoint(&self.shard, &sequence_number)
        {
            tracing::warn!(shard = self.shard, %error, "the checkpoint cannot be kept");
        }
    }
}
