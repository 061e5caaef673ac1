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
    records: VecDeque<(String, bool)>,
}

impl Checkpoint {
    pub(super) fn new(shard: String, source: Arc<dyn RecordSource>) -> Self {
        Self { shard, source, window: Mutex::default() }
    }

    /// Takes note of a record that was read, and gives it a position.
    pub(super) fn add(&self, sequence_number: &str) -> usize {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.records.push_back((sequence_number.to_owned(), false));
        window.base + window.records.len() - 1
    }

    /// How many records wait to get behind the checkpoint.
    pub(super) fn outstanding(&self) -> usize {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).records.len()
    }

    /// Moves the checkpoint past all records before which nothing is unfinished.
    pub(super) fn done(&self, positions: impl IntoIterator<Item = usize>) {
        // Saved under the lock: a later checkpoint must not be overtaken by an earlier one.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions {
            let index = position.checked_sub(window.base);
            if let Some((_, done)) = index.and_then(|index| window.records.get_mut(index)) {
                *done = true;
            }
        }
        let mut reached = None;
        while let Some((sequence_number, _)) = window.records.pop_front_if(|(_, done)| *done) {
            window.base += 1;
            reached = Some(sequence_number);
        }
        if let Some(sequence_number) = reached
            && let Err(error) = self.source.save_checkpoint(&self.shard, &sequence_number)
        {
            tracing::warn!(shard = self.shard, %error, "the checkpoint cannot be kept");
        }
    }
}
