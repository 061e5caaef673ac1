use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use aws_sdk_dynamodb::config::SharedHttpClient;

use super::reply::reply;
use super::{Function, Host};
use crate::app::App;
use crate::aws::AwsEnvironment;
use crate::config::{ConfigError, Environment};
use crate::connections::ApiGatewayConnections;
use crate::ports::Timestamp;
use crate::router::{Router, RouterSettings};
use crate::store::StoreError;
use crate::store::dynamodb::{DynamoConnectionStore, DynamoRateLimits, DynamoRequestQueue, QueueSettings};

/// The router as it runs on Lambda, with DynamoDB and API Gateway as its services.
pub type LambdaRouter = Router<DynamoConnectionStore, DynamoRequestQueue, ApiGatewayConnections>;

/// Settings of the `router` function, from its environment variables.
#[derive(Debug)]
pub struct RouterSetup {
    aws: AwsEnvironment,
    connections: String,
    requests: String,
    rate_limits: Option<String>,
    settings: RouterSettings,
    queue_settings: QueueSettings,
}

impl Function for LambdaRouter {
    type Setup = RouterSetup;
    type Event = ApiGatewayWebsocketProxyRequest;
    type Reply = ApiGatewayProxyResponse;

    fn read(environment: &mut Environment<'_>, http: SharedHttpClient) -> Option<RouterSetup> {
        let aws = AwsEnvironment::from_env(environment, http);
        let connections = environment.required("CONNECTIONS_TABLE");
        let requests = environment.required("REQUESTS_TABLE");
        let rate_limits = environment.optional("RATE_LIMITS_TABLE");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let settings = RouterSettings::from_env(environment);
        let queue_settings = QueueSettings::from_env(environment);
        Some(RouterSetup { aws, connections, requests, rate_limits, settings, queue_settings })
    }

    fn handler_threads(_: &RouterSetup) -> usize {
        1
    }

    async fn start(
        setup: RouterSetup,
        host: &Host,
        app: impl FnOnce() -> Arc<App> + Send,
    ) -> Result<Self, ConfigError> {
        let aws = setup.aws.with_clock(&host.clock);
        let client = aws.dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), setup.connections);
        let queue = DynamoRequestQueue::new(client.clone(), setup.requests, setup.queue_settings);
        let clients = ApiGatewayConnections::new(aws.management_api());
        let (clock, handlers) = (Arc::clone(&host.clock), host.handler_runtime.clone());
        let mut router = Self::new(app(), connections, queue, clients, clock, handlers);
        router.set_settings(setup.settings);
        if let Some(table) = setup.rate_limits {
            router.set_rate_limits(DynamoRateLimits::new(client, table));
        }
        Ok(router)
    }

    async fn handle(
        &self,
        message: ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> Result<ApiGatewayProxyResponse, StoreError> {
        // The body of the reply is a frame, which the gateway sends to the client as the route response.
        Ok(reply(200, Some(self.route_before(&message, deadline).await)))
    }
}
