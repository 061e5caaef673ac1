//! The checkpoint of a shard. Lanes may complete the records of a shard out of order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::source::RecordSource;

/// Checkpoint of one shard, and the records that were read but are not yet covered by the checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    shard: String,
    source: Arc<dyn RecordSource>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// Position in the shard of the first record in `records`.
    base: usize,
    /// Sequence number and number of unfinished deliveries of each record, in the order of the shard.
    records: VecDeque<(String, usize)>,
    /// True once the shard no longer exists; no more checkpoints are saved.
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

    /// Adds a record with one unfinished delivery, and returns the record's position.
    pub(super) fn add(&self, sequence_number: &str) -> usize {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.records.push_back((sequence_number.to_owned(), 1));
        window.base + window.records.len() - 1
    }

    /// Returns the number of records that were read but are not yet covered by the checkpoint.
    pub(super) fn outstanding(&self) -> usize {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).records.len()
    }

    /// Adds one more unfinished delivery to each of the records at `positions`.
    pub(super) fn add_delivery(&self, positions: impl IntoIterator<Item = usize>) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions {
            if let Some(deliveries) = window.deliveries(position) {
                *deliveries += 1;
            }
        }
    }

    /// Stops saving checkpoints, because the shard no longer exists.
    pub(super) fn stop_saving(&self) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).gone = true;
    }

    /// Marks one delivery of each of the records at `positions` as finished. Then moves the checkpoint forward, up to
    /// the first record that still has an unfinished delivery.
    pub(super) fn done(&self, positions: impl IntoIterator<Item = usize>) {
        // The checkpoint is saved under the lock, so that an earlier checkpoint cannot overwrite a later one.
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
            tracing::warn!(shard = self.shard, %error, "cannot save checkpoint; restart may redeliver records");
        }
    }
}
