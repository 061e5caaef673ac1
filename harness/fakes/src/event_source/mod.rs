//! Event source mapping: polls a DynamoDB stream and invokes a function with what it finds.
//!
//! [`EventSourceMapping`] reads each shard of a [`RecordSource`], drops what no filter matches, gathers
//! batches and invokes. What it retries, splits, gives up on and checkpoints follows Lambda's rules for
//! streams; delivery is at least once, in order within a shard (or within an item key, with parallelization).

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

/// One event source mapping.
#[derive(Debug)]
pub struct EventSourceMapping {
    settings: Arc<Settings>,
    ports: Ports,
}

impl EventSourceMapping {
    /// A mapping, which does nothing until it is [run](Self::run).
    ///
    /// # Errors
    /// When a setting is outside the bounds that Lambda has for it; the error lists all of them.
    pub fn new(settings: Settings, ports: Ports) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings: Arc::new(settings), ports })
    }

    /// Polls and invokes until `shutdown` is ready.
    ///
    /// What is being invoked then is not waited for, and is delivered again by the next run.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        tokio::select! {
            biased;
            () = shutdown => {}
            () = self.poll(), if self.settings.enabled => {}
        }
    }

    /// Starts a reader for each shard as its turn comes. Dropped, it takes the readers with it.
    async fn poll(&self) {
        let mut readers = JoinSet::new();
        let mut read = BTreeMap::new();
        let mut start = Start::Unknown;
        let mut timer = PollTimer::new(self.settings.poll_interval, &*self.ports.source);
        loop {
            timer.mark_seen();
            let listed = self.shards(&mut start);
            match &listed {
                Ok(shards) => self.read_on(shards, &mut read, &mut readers),
                Err(error) => {
                    tracing::warn!(uuid = self.settings.uuid, %error, "the stream's shards cannot be listed");
                }
            }
            tokio::select! {
                biased;
                shard = next_ended(&mut readers) => {
                    read.insert(shard, Progress::Done);
                }
                () = timer.next(listed.is_ok(), pending()) => {}
            }
        }
    }

    /// Starts to read the shards whose parent is read to its end, or is not there any more.
    fn read_on(
        &self,
        shards: &[Shard],
        read: &mut BTreeMap<String, Progress>,
        readers: &mut JoinSet<String>,
    ) {
        // What is gone for good is forgotten.
        read.retain(|id, _| shards.iter().any(|shard| shard.id == *id));
        for shard in shards {
            let closed = match read.get_mut(&shard.id) {
                Some(Progress::Done) => continue,
                Some(Progress::Reading(closed)) => closed,
                None => {
                    let parent = shard
                        .parent
                        .as_ref()
                        .filter(|parent| shards.iter().any(|shard| shard.id == **parent));
                    if parent.is_some_and(|parent| !matches!(read.get(parent), Some(Progress::Done))) {
                        continue;
                    }
                    let (settings, ports) = (Arc::clone(&self.settings), self.ports.clone());
                    let closed = watch::Sender::new(false);
                    readers.spawn(shard::read(shard.id.clone(), settings, ports, closed.subscribe()));
                    let entry = read.entry(shard.id.clone());
                    match entry.or_insert(Progress::Reading(closed)) {
                        Progress::Reading(closed) => closed,
                        Progress::Done => continue,
                    }
                }
            };
            closed.send_if_modified(|known| std::mem::replace(known, shard.closed) != shard.closed);
        }
    }

    /// The stream's shards. A new mapping that is to start with what is written from now on skips what they hold
    /// first; shards that appear later are their children, and nothing of them has been read.
    fn shards(&self, start: &mut Start) -> Result<Vec<Shard>, SourceError> {
        let source = &self.ports.source;
        let shards = source.shards()?;
        if matches!(start, Start::Unknown) {
            let begun =
                shards.iter().map(|shard| source.checkpoint(&shard.id)).collect::<Result<Vec<_>, _>>()?;
            // One that has read any of them before has started already: those that it does not know have appeared
            // while it was down.
            let is_new = begun.iter().all(Option::is_none);
            *start = match self.settings.starting_position {
                StartingPosition::Latest if is_new => {
                    Start::Skipping(shards.iter().map(|shard| shard.id.clone()).collect())
                }
                StartingPosition::Latest | StartingPosition::TrimHorizon => Start::Begun,
            };
        }
        if let Start::Skipping(left) = start {
            while let Some(shard) = left.first() {
                // Kept at once: a restart must not skip what comes in from now on.
                if shards.iter().any(|known| known.id == *shard)
                    && let Some(latest) = source.latest(shard)?
                {
                    source.save_checkpoint(shard, &latest)?;
                }
                left.pop_first();
            }
            *start = Start::Begun;
        }
        Ok(shards)
    }
}

/// How far a mapping has come to begin.
#[derive(Debug)]
enum Start {
    /// It does not know yet whether it has run before.
    Unknown,
    /// What these shards hold is still to be skipped.
    Skipping(BTreeSet<String>),
    /// Each shard is read from its checkpoint on, or from its oldest record.
    Begun,
}

/// How far a shard is read.
#[derive(Debug)]
enum Progress {
    /// Its reader is told here that nothing will be added to it.
    Reading(watch::Sender<bool>),
    /// Nothing is left of it to do.
    Done,
}
