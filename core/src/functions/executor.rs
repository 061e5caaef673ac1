use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;

use super::Host;
use crate::app::App;
use crate::aws::{AwsEnvironment, SqsDeadLetters};
use crate::config::Environment;
use crate::connections::ApiGatewayConnections;
use crate::executor::{Executor, ExecutorSettings};
use crate::handler::HandlerRuntime;
use crate::store::dynamodb::{DynamoRequestQueue, QueueSettings};

/// Settings that the processor and the worker both read from their environment.
#[derive(Debug)]
pub(super) struct ExecutorSetup {
    aws: AwsEnvironment,
    requests: String,
    dead_letters: String,
    settings: ExecutorSettings,
    queue_settings: QueueSettings,
}

/// The executor as it runs on Lambda, in the processor and the worker.
pub(super) type LambdaExecutor = Executor<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

impl ExecutorSetup {
    pub(super) fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Self {
        let aws = AwsEnvironment::from_env(environment, http);
        let requests = environment.required("REQUESTS_TABLE");
        let dead_letters = environment.required("DEAD_LETTER_QUEUE_URL");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let settings = ExecutorSettings::from_env(environment);
        let queue_settings = QueueSettings::from_env(environment);
        Self { aws, requests, dead_letters, settings, queue_settings }
    }

    /// Returns the configuration of the AWS clients, which date signed requests with the host's clock.
    pub(super) fn aws(&self, host: &Host) -> AwsEnvironment {
        self.aws.clone().with_clock(&host.clock)
    }

    pub(super) fn executor(self, host: &Host, app: Arc<App>) -> LambdaExecutor {
        let aws = self.aws(host);
        Executor {
            app,
            queue: DynamoRequestQueue::new(aws.dynamodb(), self.requests, self.queue_settings),
            connections: ApiGatewayConnections::new(aws.management_api()),
            dead_letters: SqsDeadLetters::new(aws, Arc::clone(&host.clock), self.dead_letters),
            clock: Arc::clone(&host.clock),
            entropy: Arc::clone(&host.entropy),
            handler_runtime: HandlerRuntime::on(host.handler_runtime.clone()),
            settings: self.settings,
        }
    }
}
