//! Event source mappings: Lambda's pollers, which read a DynamoDB stream and invoke a function with its records.
//!
//! An [`EventSourceMapping`] reads each shard of a [`RecordSource`], drops the records that no filter matches,
//! gathers the others into batches, and invokes the function with each batch. Retries, splitting of batches,
//! failure records and checkpoints follow Lambda's rules for streams.
//!
//! Delivery is at least once. Records are delivered in order within a shard; with parallelization, only in order
//! within an item (partition and sort key).

mod batch;
mod checkpoint;
mod filter;
mod lane;
mod on_failure;
mod poll_timer;
mod ports;
mod reply;
mod settings;
mod shard;
mod source;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::watch;
use poll_timer::PollTimer;
use tasks::next_ended;

pub use filter::{FilterError, FilterPattern};
pub use on_failure::{
    BatchInfo, Condition, FailureRecord, LogFailures, OnFailure, RequestContext, ResponseContext,
    SendFailures,
};
pub use ports::Ports;
pub use settings::{Backoff, Settings, SettingsError, StartingPosition};
pub use source::{Record, RecordSource, Shard, SourceError};

/// An event source mapping, which delivers the records of one stream to one function.
#[derive(Debug)]
pub struct EventSourceMapping {
    settings: Arc<Settings>,
    ports: Ports,
}

impl EventSourceMapping {
    /// Creates a mapping. The mapping does nothing until [`run`](Self::run) is called.
    ///
    /// # Errors
    /// [`SettingsError`] if settings are outside Lambda's bounds. The error lists all invalid settings.
    pub fn new(settings: Settings, ports: Ports) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings: Arc::new(settings), ports })
    }

    /// Polls the stream and invokes the function until `shutdown` completes.
    ///
    /// Invocations in progress at shutdown are not awaited. The next run delivers their records again.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        tokio::select! {
            biased;
            () = shutdown => {}
            () = self.poll(), if self.settings.enabled => {}
        }
    }

    /// Lists the shards repeatedly, and runs a reader task for each shard. Dropping this future stops the readers.
    async fn poll(&self) {
        let mut readers = JoinSet::new();
        let mut progress = BTreeMap::new();
        let mut start = Start::Unknown;
        let mut timer = PollTimer::new(self.settings.poll_interval, &*self.ports.source);
        loop {
            timer.mark_seen();
            let listed = self.shards(&mut start);
            match &listed {
                Ok(shards) => self.start_readers(shards, &mut progress, &mut readers),
                Err(error) => {
                    tracing::warn!(mapping = self.settings.uuid, %error, "cannot list stream shards; retrying");
                }
            }
            tokio::select! {
                biased;
                shard = next_ended(&mut readers) => {
                    progress.insert(shard, Progress::Done);
                }
                () = timer.next(listed.is_ok(), pending()) => {}
            }
        }
    }

    /// Starts a reader for each shard whose parent is fully processed or no longer exists, and tells each reader
    /// whether its shard is closed.
    fn start_readers(
        &self,
        shards: &[Shard],
        progress: &mut BTreeMap<String, Progress>,
        readers: &mut JoinSet<String>,
    ) {
        // Drop the state of shards that no longer exist.
        progress.retain(|id, _| shards.iter().any(|shard| shard.id == *id));
        for shard in shards {
            let closed = match progress.get_mut(&shard.id) {
                Some(Progress::Done) => continue,
                Some(Progress::Reading(closed)) => closed,
                None => {
                    let parent = shard
                        .parent
                        .as_ref()
                        .filter(|parent| shards.iter().any(|shard| shard.id == **parent));
                    if parent.is_some_and(|parent| !matches!(progress.get(parent), Some(Progress::Done))) {
                        continue;
                    }
                    let (settings, ports) = (Arc::clone(&self.settings), self.ports.clone());
                    let closed = watch::Sender::new(false);
                    readers.spawn(shard::read(shard.id.clone(), settings, ports, closed.subscribe()));
                    let entry = progress.entry(shard.id.clone());
                    match entry.or_insert(Progress::Reading(closed)) {
                        Progress::Reading(closed) => closed,
                        Progress::Done => continue,
                    }
                }
            };
            closed.send_if_modified(|value| std::mem::replace(value, shard.closed) != shard.closed);
        }
    }

    /// Lists the stream's shards.
    ///
    /// Before the first list is returned, a new mapping with [`StartingPosition::Latest`] saves a checkpoint after
    /// the newest record of each shard. Shards that appear later are children of these shards, and are read from
    /// the start.
    fn shards(&self, start: &mut Start) -> Result<Vec<Shard>, SourceError> {
        let source = &self.ports.source;
        let shards = source.shards()?;
        if matches!(start, Start::Unknown) {
            let checkpoints =
                shards.iter().map(|shard| source.checkpoint(&shard.id)).collect::<Result<Vec<_>, _>>()?;
            // A mapping with any checkpoint has run before. Any of its shards without a checkpoint appeared while the
            // mapping was stopped, and must be read from the start.
            let is_new = checkpoints.iter().all(Option::is_none);
            *start = match self.settings.starting_position {
                StartingPosition::Latest if is_new => {
                    Start::Skipping(shards.iter().map(|shard| shard.id.clone()).collect())
                }
                StartingPosition::Latest | StartingPosition::TrimHorizon => Start::Settled,
            };
        }
        if let Start::Skipping(to_skip) = start {
            while let Some(shard) = to_skip.first() {
                // The checkpoint is saved before any read. Otherwise a restart of the mapping would skip the records
                // written before the restart.
                if shards.iter().any(|known| known.id == *shard)
                    && let Some(latest) = source.latest(shard)?
                {
                    source.save_checkpoint(shard, &latest)?;
                }
                to_skip.pop_first();
            }
            *start = Start::Settled;
        }
        Ok(shards)
    }
}

/// State of a mapping that determines its starting position.
#[derive(Debug)]
enum Start {
    /// The mapping has not yet checked whether it has run before.
    Unknown,
    /// The mapping starts at LATEST. For each shard in this set, the mapping has not yet saved the checkpoint at the
    /// shard's newest record, so that older records are skipped.
    Skipping(BTreeSet<String>),
    /// The mapping reads each shard from the shard's checkpoint, or from the oldest record if the shard has no
    /// checkpoint.
    Settled,
}

/// Progress of a mapping in one shard.
#[derive(Debug)]
enum Progress {
    /// A reader reads the shard. The channel tells the reader whether the shard is closed.
    Reading(watch::Sender<bool>),
    /// The shard is closed, and all its records are processed.
    Done,
}
