use std::sync::Arc;

use super::{AwsEnvironment, ServiceError};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::ports::Clock;

/// Dead letters as messages of an SQS queue: the body of each is the [`DeadLetter`] as JSON.
#[derive(Clone, Debug)]
pub struct SqsDeadLetters {
    aws: AwsEnvironment,
    clock: Arc<dyn Clock>,
    queue_url: String,
}

impl SqsDeadLetters {
    /// The queue of this URL.
    #[must_use]
    pub fn new(aws: AwsEnvironment, clock: Arc<dyn Clock>, queue_url: impl Into<String>) -> Self {
        Self { aws, clock, queue_url: queue_url.into() }
    }
}

impl DeadLetters for SqsDeadLetters {
    async fn send(&self, letter: &DeadLetter) -> Result<(), ServiceError> {
        let _ = (&self.aws, &self.clock);
        Err(ServiceError::refused(format!("send {} to {}", letter.id, self.queue_url), "not there yet"))
    }
}
