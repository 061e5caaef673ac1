//! Demo action `index_archive`: long work that saves checkpoints, and continues in as many invocations as it
//! needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// Handler of `index_archive`, which counts the words in the volumes of an archive, and saves a checkpoint
/// after each volume.
#[derive(Debug)]
pub struct IndexArchive;

/// Payload of an `index_archive` request.
#[derive(Debug, Deserialize)]
pub struct Archive {
    /// Name of the archive, from which its contents are generated.
    name: String,
    /// Number of volumes in the archive. Default 20, at most 100,000, which is more than one invocation can
    /// read.
    #[serde(default = "default_volumes")]
    volumes: u32,
}

/// Checkpoint and result of an `index_archive` request.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Index {
    /// Number of volumes that have been read.
    volumes: u32,
    /// Number of words in the volumes that have been read.
    words: u64,
}

const fn default_volumes() -> u32 {
    20
}

/// Minimum remaining time of the invocation to start a further volume. One volume takes far less time.
const TIME_RESERVE: Duration = Duration::from_secs(30);

impl Handler for IndexArchive {
    type Input = Archive;
    type Output = Index;

    fn validate(&self, input: &Archive) -> Result<(), Vec<FieldError>> {
        match input.volumes {
            1..=100_000 => Ok(()),
            other => Err(vec![FieldError::new("volumes", format!("must be from 1 to 100000, not {other}"))]),
        }
    }

    /// Returns more than the router's threshold for queueing (default 5 s). From about 120 volumes on, the
    /// estimate is also above the limit up to which the processor runs a request itself (default 30 s).
    fn estimated_duration(&self, input: &Archive) -> Duration {
        Duration::from_secs(6) + Duration::from_millis(200) * input.volumes
    }

    async fn process(&self, input: Archive, context: Context) -> Result<Index, HandlerError> {
        let mut index: Index = context.checkpoint()?.unwrap_or_default();
        // `continue_later` needs a checkpoint, even if the time does not suffice for the first volume.
        context.progress.checkpoint(&index).await?;
        while index.volumes < input.volumes {
            if context.progress.remaining() < TIME_RESERVE {
                return Err(HandlerError::continue_later());
            }
            let mut words = Numbers::named(&format!("{}/{}", input.name, index.volumes));
            for _ in 0..4 {
                page_latency().await;
            }
            index.words += 50_000 + words.below(50_000);
            index.volumes += 1;
            context.progress.checkpoint(&index).await?;
            let percentage = f64::from(index.volumes) / f64::from(input.volumes) * 100.0;
            context.progress.report(percentage, format!("Volume {} of {}", index.volumes, input.volumes))?;
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> Context {
        Context::new("index_archive", "r1".into(), "ann".into(), "acme".into(), "c1".into())
    }

    #[tokio::test(start_paused = true)]
    async fn index_resumed_from_a_checkpoint_equals_an_uninterrupted_index() {
        let archive = |volumes| Archive { name: "a".into(), volumes };
        let whole = IndexArchive.process(archive(9), context()).await.unwrap();
        let half = IndexArchive.process(archive(4), context()).await.unwrap();
        let rest = context().with_checkpoint(json!(half));
        assert_eq!(IndexArchive.process(archive(9), rest).await.unwrap(), whole);
    }
}
