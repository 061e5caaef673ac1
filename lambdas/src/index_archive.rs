//! `index_archive`: work that goes on from where it was, in as many invocations as it takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// `index_archive`: counts the words of an archive's volumes, and saves a checkpoint after each.
#[derive(Debug)]
pub struct IndexArchive;

/// What `index_archive` is asked with.
#[derive(Debug, Deserialize)]
pub struct Archive {
    name: String,
    /// How many volumes it has. Default 20, at most 100,000: more than one invocation reads.
    #[serde(default = "default_volumes")]
    volumes: u32,
}

/// How far it has come, and what `index_archive` answers with.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Index {
    volumes: u32,
    words: u64,
}

const fn default_volumes() -> u32 {
    20
}

/// What is left when it stops to begin another volume: far more than one takes.
const TO_SPARE: Duration = Duration::from_secs(30);

impl Handler for IndexArchive {
    type Input = Archive;
    type Output = Index;

    fn validate(&self, input: &Archive) -> Result<(), Vec<FieldError>> {
        match input.volumes {
            1..=100_000 => Ok(()),
            other => {
                Err(vec![FieldError::new("volumes", format!("must be from 1 to 100000, and is {other}"))])
            }
        }
    }

    /// Always above the router's threshold; above the processor's from about 120 volumes on.
    fn estimated_duration(&self, input: &Archive) -> Duration {
        Duration::from_secs(6) + Duration::from_millis(200) * input.volumes
    }

    async fn process(&self, input: Archive, context: Context) -> Result<Index, HandlerError> {
        let mut index: Index = context.checkpoint()?.unwrap_or_default();
        // There must be one to go on from, should there be no time for a first volume.
        context.progress.checkpoint(&index).await?;
        while index.volumes < input.volumes {
            if context.progress.remaining() < TO_SPARE {
                return Err(HandlerError::go_on_later());
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
