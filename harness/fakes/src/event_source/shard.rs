//! The reader of one shard, which polls the shard and distributes the records to lanes (concurrent batch processors).

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::batch::{self, Item};
use super::checkpoint::Checkpoint;
use super::lane::Lane;
use super::poll_timer::PollTimer;
use super::ports::Ports;
use super::settings::Settings;
use super::source::{Record, RecordSource, SourceError};
use super::tasks::next_ended;
use crate::faults::{CallContext, Effect, Service};
use crate::watch;

/// Maximum number of records in one read, the limit of `GetRecords`.
const READ_LIMIT: usize = 1_000;

/// Reads `shard` and processes its records in lanes. Dropping this future ends the lanes.
///
/// The future returns the shard's id when the shard is `closed` and all its records are processed, or when the stream
/// no longer contains the shard.
pub(super) async fn read(
    shard: String,
    settings: Arc<Settings>,
    ports: Ports,
    mut closed: watch::Receiver<bool>,
) -> String {
    let source = Arc::clone(&ports.source);
    let checkpoint = Arc::new(Checkpoint::new(shard.clone(), Arc::clone(&source)));
    let mut tasks = JoinSet::new();
    let mut lanes = Vec::new();
    for _ in 0..settings.parallelization_factor {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (settings, ports) = (Arc::clone(&settings), ports.clone());
        let lane = Lane::new(shard.clone(), settings, ports, Arc::clone(&checkpoint), inbox);
        tasks.spawn(lane.run());
        lanes.push(outbox);
    }
    let mut reader = Reader { shard, settings, ports, source, checkpoint, lanes, cursor: Cursor::Unknown };
    let mut timer = PollTimer::new(reader.settings.poll_interval, &*reader.source);
    loop {
        timer.mark_seen();
        // Checked before the read: if the shard is closed now, the read returns all remaining records.
        let is_closed = *closed.borrow_and_update();
        let mut idle = false;
        match reader.poll() {
            Ok(Polled::Nothing) if is_closed && reader.checkpoint.outstanding() == 0 => return reader.shard,
            // A closed shard is not idle while lanes still process its records: the next tick checks whether the
            // lanes are done.
            Ok(Polled::Nothing) => idle = !is_closed,
            Ok(Polled::Records) => {}
            Err(_) if reader.is_gone() => break,
            Err(error) => tracing::warn!(shard = reader.shard, %error, "cannot read shard; retrying"),
        }
        tokio::select! {
            biased;
            () = next_ended(&mut tasks) => {}
            () = timer.next(idle, closed_changed(&mut closed)) => {}
        }
    }
    // The shard is gone, so its records are older than the stream's retention: the lanes drop their remaining
    // records.
    reader.checkpoint.stop_saving();
    while reader.checkpoint.outstanding() > 0 {
        tokio::select! {
            biased;
            () = next_ended(&mut tasks) => {}
            () = timer.next(false, pending()) => {}
        }
    }
    reader.shard
}

/// Waits until the mapping reports that the shard is closed.
async fn closed_changed(closed: &mut watch::Receiver<bool>) {
    if closed.changed().await.is_err() {
        // The stream no longer lists the shard. The next read fails, and the reader stops.
        pending().await
    }
}

struct Reader {
    shard: String,
    settings: Arc<Settings>,
    ports: Ports,
    source: Arc<dyn RecordSource>,
    checkpoint: Arc<Checkpoint>,
    lanes: Vec<mpsc::UnboundedSender<Vec<Item>>>,
    cursor: Cursor,
}

/// Position in the shard from which its reader continues.
enum Cursor {
    /// The reader has not loaded the shard's checkpoint yet.
    Unknown,
    /// The reader continues after the record with this sequence number; `None` means from the oldest record.
    After(Option<String>),
}

/// Result of one poll of a shard.
enum Polled {
    Records,
    Nothing,
}

impl Reader {
    /// Returns `true` if the stream no longer contains the shard, because the shard was closed more than 24 hours
    /// ago.
    fn is_gone(&self) -> bool {
        self.source.shards().is_ok_and(|shards| shards.iter().all(|shard| shard.id != self.shard))
    }

    /// Returns an error if a fault makes this read fail. Only reads that return records can fail; the caller then
    /// discards the records and reads them again later.
    fn inject_read_fault(&self, records: &[Record]) -> Result<(), SourceError> {
        let Some(first) = records.first() else { return Ok(()) };
        let table = first.table();
        let context = CallContext {
            service: Service::Streams,
            operation: "GetRecords",
            resources: table.as_slice(),
            index: None,
            caller: Some(&self.settings.function),
        };
        let possible = |effect| matches!(effect, Effect::Throttle | Effect::Fail);
        match self.ports.faults.inject(&context, possible).effect {
            Some(Effect::Throttle) => Err(SourceError::new("GetRecords throttled by an injected fault")),
            Some(_) => Err(SourceError::new("GetRecords failed because of an injected fault")),
            None => Ok(()),
        }
    }

    fn poll(&mut self) -> Result<Polled, SourceError> {
        let after = match &self.cursor {
            Cursor::Unknown => self.source.checkpoint(&self.shard)?,
            Cursor::After(after) => after.clone(),
        };
        // The reader waits for lanes that fall behind. Otherwise a stuck lane would collect the whole stream in
        // memory.
        let room = READ_LIMIT
            .max(self.settings.batch_size.saturating_mul(self.settings.parallelization_factor))
            .saturating_sub(self.checkpoint.outstanding())
            .min(READ_LIMIT);
        let records =
            if room == 0 { Vec::new() } else { self.source.read(&self.shard, after.as_deref(), room)? };
        self.inject_read_fault(&records)?;
        let last = records.last().map(|record| record.sequence_number.clone());
        self.cursor = Cursor::After(last.or(after));

        let mut skipped = Vec::new();
        let mut by_lane = vec![Vec::new(); self.lanes.len()];
        for record in &records {
            let position = self.checkpoint.add(&record.sequence_number);
            let filters = &self.settings.filters;
            if filters.is_empty() || filters.iter().any(|filter| filter.matches(&record.event)) {
                by_lane[batch::lane(record, self.lanes.len())].push(Item::new(position, record));
            } else {
                skipped.push(position);
            }
        }
        self.checkpoint.done(skipped);
        // One message for each lane, so that records of one read can form one batch.
        for (lane, items) in self.lanes.iter().zip(by_lane) {
            if !items.is_empty() {
                // Sending cannot fail, because the lanes run for as long as the reader.
                let _ = lane.send(items);
            }
        }
        Ok(if room > 0 && records.is_empty() { Polled::Nothing } else { Polled::Records })
    }
}
