use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;

use super::executor::ExecutorSetup;
use super::{Function, Host};
use crate::app::App;
use crate::aws::{LambdaDispatch, SqsDeadLetters};
use crate::config::{ConfigError, Environment};
use crate::connections::ApiGatewayConnections;
use crate::ports::Timestamp;
use crate::processor::{BatchResponse, Processor, ProcessorSettings, StreamBatch};
use crate::store::StoreError;
use crate::store::dynamodb::DynamoRequestQueue;

/// The processor as it runs on Lambda, with DynamoDB, API Gateway, SQS and Lambda as its services.
pub type LambdaProcessor =
    Processor<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters, LambdaDispatch>;

/// Settings of the `processor` function, from its environment variables.
#[derive(Debug)]
pub struct ProcessorSetup {
    executor: ExecutorSetup,
    worker: String,
    settings: ProcessorSettings,
}

impl Function for LambdaProcessor {
    type Setup = ProcessorSetup;
    type Event = StreamBatch;
    type Reply = BatchResponse;

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<ProcessorSetup> {
        let executor = ExecutorSetup::read(environment, http);
        let worker = environment.required("WORKER_FUNCTION");
        let settings = ProcessorSettings::from_env(environment);
        Some(ProcessorSetup { executor, worker, settings })
    }

    fn handler_threads(setup: &ProcessorSetup) -> usize {
        setup.settings.concurrency
    }

    async fn start(
        setup: ProcessorSetup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        let ProcessorSetup { executor, worker, settings } = setup;
        let dispatch = LambdaDispatch::new(executor.aws(host), Arc::clone(&host.clock), worker);
        Ok(Self::new(executor.executor(host, app()), dispatch, settings))
    }

    async fn handle(&self, batch: StreamBatch, deadline: Timestamp) -> Result<BatchResponse, StoreError> {
        Ok(self.process(batch, deadline).await)
    }
}
