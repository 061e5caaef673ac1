use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;

use super::executor::ExecutorSetup;
use super::{Function, Host};
use crate::app::App;
use crate::aws::SqsDeadLetters;
use crate::config::{ConfigError, Environment};
use crate::connections::ApiGatewayConnections;
use crate::ports::Timestamp;
use crate::store::StoreError;
use crate::store::dynamodb::DynamoRequestQueue;
use crate::worker::Worker;
use crate::worker::dispatch::WorkerEvent;

/// The worker as it runs on Lambda, with DynamoDB, API Gateway and SQS as its services.
pub type LambdaWorker = Worker<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

/// Settings of the `worker` function, from its environment variables.
#[derive(Debug)]
pub struct WorkerSetup(ExecutorSetup);

impl Function for LambdaWorker {
    type Setup = WorkerSetup;
    type Event = WorkerEvent;
    type Reply = ();

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<WorkerSetup> {
        Some(WorkerSetup(ExecutorSetup::read(environment, http)))
    }

    fn handler_threads(_: &WorkerSetup) -> usize {
        1
    }

    async fn start(
        WorkerSetup(executor): WorkerSetup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        Ok(Self::new(executor.executor(host, app())))
    }

    async fn handle(&self, event: WorkerEvent, deadline: Timestamp) -> Result<(), StoreError> {
        // Boxed because the future contains a whole attempt and is large.
        Box::pin(self.run(&event, deadline)).await
    }
}
