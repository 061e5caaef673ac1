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
pub struct Connections {
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
    connections: Connections,
}

impl EventSourceMapping {
    /// A mapping, which does nothing until it is [run](Self::run).
    ///
    /// # Errors
    /// When a setting is outside the bounds that Lambda has for it; the error lists all of them.
    pub fn new(settings: Settings, connections: Connections) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings: Arc::new(settings), connections })
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
        let mut ticks = tokio::time::interval(self.settings.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Shards that appear later are the children of known ones: what they hold has not been read yet,
        // wherever the mapping itself started.
        let mut starting_position = self.settings.starting_position;
        loop {
            ticks.tick().await;
            match self.connections.source.shards() {
                Ok(shards) => {
                    for shard in shards {
                        if known.insert(shard.clone()) {
                            let settings = Arc::clone(&self.settings);
                            readers.spawn(shard::read(
                                shard,
                                starting_position,
                                settings,
                                self.connections.clone(),
                            ));
                        }
                    }
                    starting_position = StartingPosition::TrimHorizon;
                }
                Err(error) => {
                    tracing::warn!(uuid = self.settings.uuid, %error, "the stream's shards cannot be listed")
                }
            }
        }
    }
}
