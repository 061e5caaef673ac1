//! The reader of one shard.

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

/// The most records of one read, as `GetRecords` has it.
const READ_LIMIT: usize = 1_000;

/// Reads `shard` and feeds its lanes, which end with this future. It ends, with the shard's id, once the shard is
/// `closed`, read to its end, and all of it is done.
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
        let (inlet, inbox) = mpsc::unbounded_channel();
        let (settings, ports) = (Arc::clone(&settings), ports.clone());
        let lane = Lane::new(shard.clone(), settings, ports, Arc::clone(&checkpoint), inbox);
        tasks.spawn(lane.run());
        lanes.push(inlet);
    }
    let mut reader = Reader { shard, settings, ports, source, checkpoint, lanes, cursor: Cursor::Unknown };
    let mut timer = PollTimer::new(reader.settings.poll_interval, &*reader.source);
    loop {
        timer.mark_seen();
        // Before the read: what was added until it was closed is read then.
        let is_closed = *closed.borrow_and_update();
        let mut idle = false;
        match reader.poll() {
            Ok(Polled::Nothing) if is_closed && reader.checkpoint.outstanding() == 0 => return reader.shard,
            // Of one that is closed, the end is still awaited.
            Ok(Polled::Nothing) => idle = !is_closed,
            Ok(Polled::Records) => {}
            Err(_) if reader.is_gone() => break,
            Err(error) => tracing::warn!(shard = reader.shard, %error, "the shard cannot be read"),
        }
        tokio::select! {
            biased;
            () = next_ended(&mut tasks) => {}
            () = timer.next(idle, closed_changed(&mut closed)) => {}
        }
    }
    // Its records are as old as the shard: the lanes give up on what they still have.
    reader.checkpoint.forget();
    while reader.checkpoint.outstanding() > 0 {
        tokio::select! {
            biased;
            () = next_ended(&mut tasks) => {}
            () = timer.next(false, pending()) => {}
        }
    }
    reader.shard
}

/// Waits until the mapping says whether the shard is closed.
async fn closed_changed(closed: &mut watch::Receiver<bool>) {
    if closed.changed().await.is_err() {
        // The mapping no longer lists the shard; that it is gone, the next read finds.
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

/// How far a reader has come.
enum Cursor {
    /// It has not found out where to start.
    Unknown,
    /// It reads on after this record, or from the oldest.
    After(Option<String>),
}

/// What a read came to.
enum Polled {
    Records,
    Nothing,
}

impl Reader {
    /// Whether the stream no longer has the shard: it was closed more than 24 hours ago.
    fn is_gone(&self) -> bool {
        self.source.shards().is_ok_and(|shards| shards.iter().all(|shard| shard.id != self.shard))
    }

    /// A read that found something fails on request, as if it had not been.
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
            Some(Effect::Throttle) => Err(SourceError::new("GetRecords is throttled, as a fault has it")),
            Some(_) => Err(SourceError::new("GetRecords fails, as a fault has it")),
            None => Ok(()),
        }
    }

    fn poll(&mut self) -> Result<Polled, SourceError> {
        let after = match &self.cursor {
            Cursor::Unknown => self.source.checkpoint(&self.shard)?,
            Cursor::After(after) => after.clone(),
        };
        // Lanes that lag hold the reader up, or else a stuck one would gather the whole stream in memory.
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
        let mut sorted = vec![Vec::new(); self.lanes.len()];
        for record in &records {
            let position = self.checkpoint.add(&record.sequence_number);
            let filters = &self.settings.filters;
            if filters.is_empty() || filters.iter().any(|filter| filter.matches(&record.event)) {
                sorted[batch::lane(record, self.lanes.len())].push(Item::new(position, record));
            } else {
                skipped.push(position);
            }
        }
        self.checkpoint.done(skipped);
        // In one piece for each lane, so that what was read together may leave together.
        for (lane, items) in self.lanes.iter().zip(sorted) {
            if !items.is_empty() {
                // A lane ends only with the reader.
                let _ = lane.send(items);
            }
        }
        Ok(if room > 0 && records.is_empty() { Polled::Nothing } else { Polled::Records })
    }
}
