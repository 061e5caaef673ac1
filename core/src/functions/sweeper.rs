use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;
use serde::de::IgnoredAny;

use super::{Function, Host};
use crate::app::App;
use crate::aws::{AwsEnvironment, SqsDeadLetters};
use crate::config::{ConfigError, Environment};
use crate::connections::ApiGatewayConnections;
use crate::ports::Timestamp;
use crate::store::StoreError;
use crate::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use crate::sweeper::{Sweeper, SweeperSettings};

/// The sweeper as it runs on Lambda, with DynamoDB, API Gateway and SQS as its services.
pub type LambdaSweeper = Sweeper<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

/// Settings of the `sweeper` function, from its environment variables.
#[derive(Debug)]
pub struct SweeperSetup {
    aws: AwsEnvironment,
    requests: String,
    dead_letters: String,
    settings: SweeperSettings,
    queue_settings: QueueSettings,
}

impl Function for LambdaSweeper {
    type Setup = SweeperSetup;
    /// The event of the schedule that invokes the sweeper, whose content is ignored.
    type Event = IgnoredAny;
    type Reply = ();

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<SweeperSetup> {
        let aws = AwsEnvironment::from_env(environment, http);
        let requests = environment.required("REQUESTS_TABLE");
        let dead_letters = environment.required("DEAD_LETTER_QUEUE_URL");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let settings = SweeperSettings::from_env(environment);
        let queue_settings = QueueSettings::from_env(environment);
        Some(SweeperSetup { aws, requests, dead_letters, settings, queue_settings })
    }

    async fn start(
        setup: SweeperSetup,
        host: &Host,
        _: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        let aws = setup.aws.with_clock(&host.clock);
        Ok(Self {
            queue: DynamoRequestQueue::new(aws.dynamodb(), setup.requests, setup.queue_settings),
            connections: ApiGatewayConnections::new(aws.management_api()),
            dead_letters: SqsDeadLetters::new(aws, Arc::clone(&host.clock), setup.dead_letters),
            clock: Arc::clone(&host.clock),
            metrics: Arc::clone(&host.metrics),
            settings: setup.settings,
        })
    }

    async fn handle(&self, _: IgnoredAny, deadline: Timestamp) -> Result<(), StoreError> {
        self.sweep(deadline).await;
        Ok(())
    }
}
