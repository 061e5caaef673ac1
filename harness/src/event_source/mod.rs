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
mod reply;
mod settings;
mod shard;
mod source;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use streamer::ports::{Clock, Entropy};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::lambda::Invoke;

pub use filter::{FilterError, FilterPattern};
pub use on_failure::{
    BatchInfo, Condition, FailureRecord, LogFailures, OnFailure, RequestContext, ResponseContext,
};
pub use settings::{Backoff, Settings, SettingsError, StartingPosition};
pub use source::{Record, RecordSource, SourceError};

/// What a mapping stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The stream.
    pub source: Arc<dyn RecordSource>,
    /// What runs the function.
    pub invoke: Arc<dyn Invoke>,
    /// Where batches go that were given up on.
    pub on_failure: Arc<dyn OnFailure>,
    /// What the age of records is reckoned by.
    pub clock: Arc<dyn Clock>,
    /// Where the request ids in failure records come from.
    pub entropy: Arc<dyn Entropy>,
}

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
            () = shutdown => {}
            () = self.poll(), if self.settings.enabled => {}
        }
    }

    /// Starts a reader for each shard as it appears. Dropped, it takes the readers with it.
    async fn poll(&self) {
        let mut readers = JoinSet::new();
        let mut known = BTreeSet::new();
        let mut starting_position = self.settings.starting_position;
        let mut ticks = tokio::time::interval(self.settings.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = passed_on(&mut readers) => {}
            }
            match self.shards(&mut starting_position) {
                Ok(shards) => {
                    for shard in shards {
                        if known.insert(shard.clone()) {
                            let settings = Arc::clone(&self.settings);
                            readers.spawn(shard::read(
                                shard,
                                starting_position,
                                settings,
                                self.ports.clone(),
                            ));
                        }
                    }
                    // Shards that appear later are the children of known ones: what they hold has not been
                    // read yet, wherever the mapping itself started.
                    starting_position = StartingPosition::TrimHorizon;
                }
                Err(error) => {
                    tracing::warn!(uuid = self.settings.uuid, %error, "the stream's shards cannot be listed");
                }
            }
        }
    }

    /// The stream's shards. A mapping that has read any of them before has started already: those it does not
    /// know have appeared while it was down.
    fn shards(&self, starting_position: &mut StartingPosition) -> Result<Vec<String>, SourceError> {
        let shards = self.ports.source.shards()?;
        for shard in &shards {
            if *starting_position == StartingPosition::Latest
                && self.ports.source.checkpoint(shard)?.is_some()
            {
                *starting_position = StartingPosition::TrimHorizon;
            }
        }
        Ok(shards)
    }
}

/// Waits for a panic in one of `tasks`, which else run for ever, and passes it on: a mapping that stood still
/// in silence would be the harder to explain.
async fn passed_on(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    std::future::pending().await
}
