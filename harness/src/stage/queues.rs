//! Creates the template's queues, and chooses the on-failure destination of each event source mapping.

use std::path::Path;
use std::sync::Arc;

use streamer::ports::{Clock, Entropy};

use super::StageError;
use crate::template::{self, Environment};
use streamer_fakes::event_source::{LogFailures, OnFailure, SendFailures};
use streamer_fakes::sqs::Queues;

/// Creates the template's queues: in the folder `data`, or in memory if there is none.
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
        StageError::Queue(format!("queue {} cannot be created: {error}", queue.name))
    };
    // All queues are created before their attributes are set, because the attributes of a queue may name any
    // other queue as its dead-letter queue.
    for queue in queues {
        made.create(&queue.name, []).map_err(|error| failed(queue, error))?;
    }
    for queue in queues {
        made.deploy(&queue.name, &queue.attributes).map_err(|error| failed(queue, error))?;
    }
    Ok(made)
}

/// Returns the destination of reports about batches that a mapping no longer retries: a queue of the
/// template, or otherwise the log.
pub(super) fn on_failure(
    mapping: &template::EventSourceMapping,
    queues: &[template::Queue],
    sqs: &Queues,
) -> Arc<dyn OnFailure> {
    match &mapping.on_failure {
        Some(arn) if queues.iter().any(|queue| queue.arn == *arn) => {
            Arc::new(SendFailures::new(Arc::new(sqs.clone()), arn))
        }
        Some(_) | None => Arc::new(LogFailures),
    }
}
