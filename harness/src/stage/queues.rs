//! The template's queues, and where its mappings send what they give up on.

use std::path::Path;
use std::sync::Arc;

use streamer::ports::{Clock, Entropy};

use super::StageError;
use crate::template::{self, Environment};
use streamer_fakes::event_source::{LogFailures, OnFailure, SendFailures};
use streamer_fakes::sqs::Queues;

/// The queues in the data folder, or in memory, made as the template says.
pub(super) fn create(
    queues: &[template::Queue],
    data: Option<&Path>,
    environment: &Environment,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Queues, StageError> {
    let Environment { region, account_id, .. } = environment;
    let made = match data {
        Some(folder) => Queues::open(folder, clock, entropy, region, account_id),
        None => Queues::in_memory(clock, entropy, region, account_id),
    };
    let made = made.map_err(|error| StageError::Queue(error.to_string()))?;
    let failed = |queue: &template::Queue, error| {
        StageError::Queue(format!("queue {} cannot be made: {error}", queue.name))
    };
    // Each may be the dead-letter queue of any other.
    for queue in queues {
        made.create(&queue.name, []).map_err(|error| failed(queue, error))?;
    }
    for queue in queues {
        made.deploy(&queue.name, &queue.attributes).map_err(|error| failed(queue, error))?;
    }
    Ok(made)
}

/// Where a mapping sends what it gives up on: a queue of the template, else the log.
pub(super) fn on_failure(
    mapping: &template::EventSourceMapping,
    queues: &[template::Queue],
    to: &Queues,
) -> Arc<dyn OnFailure> {
    match &mapping.on_failure {
        Some(arn) if queues.iter().any(|queue| queue.arn == *arn) => {
            Arc::new(SendFailures::new(Arc::new(to.clone()), arn))
        }
        Some(_) | None => Arc::new(LogFailures),
    }
}
