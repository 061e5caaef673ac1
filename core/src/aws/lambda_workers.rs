use std::sync::Arc;

use super::{AwsEnvironment, ServiceError};
use crate::ids::RequestKey;
use crate::ports::Clock;
use crate::workers::Workers;

/// The worker as a Lambda function, invoked asynchronously.
#[derive(Clone, Debug)]
pub struct LambdaWorkers {
    aws: AwsEnvironment,
    clock: Arc<dyn Clock>,
    function: String,
}

impl LambdaWorkers {
    /// The function of this name or ARN.
    #[must_use]
    pub fn new(aws: AwsEnvironment, clock: Arc<dyn Clock>, function: impl Into<String>) -> Self {
        Self { aws, clock, function: function.into() }
    }
}

impl Workers for LambdaWorkers {
    async fn hand_over(&self, key: &RequestKey) -> Result<(), ServiceError> {
        let _ = (&self.aws, &self.clock);
        Err(ServiceError::refused(format!("hand {key} over to {}", self.function), "not there yet"))
    }
}
