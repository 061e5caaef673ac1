//! How functions are put together: read from an environment, then made on a clock, with clients of the caller's choice.
//!
//! The `main`s of [`lambda`](crate::lambda) and whoever runs the same functions in process, as a test does, go this one way.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;
use tokio::runtime::Handle;

use super::{Connect, Disconnect};
use crate::app::App;
use crate::aws::{AwsEnvironment, LambdaDispatch, SqsDeadLetters};
use crate::config::{ConfigError, Environment, TokenKey};
use crate::connections::ApiGatewayConnections;
use crate::executor::{Executor, ExecutorSettings};
use crate::handler::HandlerRuntime;
use crate::ports::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::processor::Processor;
use crate::router::Router;
use crate::store::dynamodb::{DynamoConnectionStore, DynamoRateLimits, DynamoRequestQueue, QueueSettings};
use crate::sweeper::{Sweeper, SweeperSettings};
use crate::telemetry::{MetricSink, StandardOutput};
use crate::worker::Worker;

/// What a function has of the machine that it runs on.
#[derive(Clone, Debug)]
pub struct Ports {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where numbers come from that nobody can guess.
    pub entropy: Arc<dyn Entropy>,
    /// Where metrics go.
    pub metrics: Arc<dyn MetricSink>,
}

impl Ports {
    /// The machine's own clock and randomness, and standard output for metrics: what a function has on Lambda.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            metrics: Arc::new(StandardOutput),
        }
    }
}

/// The `connect` function, whose environment has been read.
#[derive(Debug)]
pub struct ConnectSetup {
    aws: AwsEnvironment,
    key: TokenKey,
    connections: String,
}

impl ConnectSetup {
    /// Reads what [`lambda::connect`](crate::lambda::connect) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let aws = AwsEnvironment::read_with(&mut environment, http);
        let key = environment.token_key();
        let connections = environment.required("CONNECTIONS_TABLE");
        environment.finish_with(key).map(|key| Self { aws, key, connections })
    }

    /// Makes the function.
    ///
    /// # Errors
    /// When the key that tokens are verified with lies elsewhere and cannot be read, or is none.
    pub async fn function(self, ports: &Ports) -> Result<Connect<DynamoConnectionStore>, ConfigError> {
        let verifier = self.key.verifier(&self.aws, ports.clock.now()).await?;
        let client = self.aws.dated_by(&ports.clock).dynamodb();
        let store = DynamoConnectionStore::new(client, self.connections);
        Ok(Connect::new(verifier, store, Arc::clone(&ports.clock)))
    }
}

/// The `disconnect` function, whose environment has been read.
#[derive(Debug)]
pub struct DisconnectSetup {
    aws: AwsEnvironment,
    connections: String,
    requests: String,
    is_cancelling: bool,
    settings: QueueSettings,
}

impl DisconnectSetup {
    /// Reads what [`lambda::disconnect`](crate::lambda::disconnect) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let aws = AwsEnvironment::read_with(&mut environment, http);
        let connections = environment.required("CONNECTIONS_TABLE");
        let requests = environment.required("REQUESTS_TABLE");
        let (is_cancelling, settings) = (environment.cancel_on_disconnect(), environment.queue_settings());
        environment.finish()?;
        Ok(Self { aws, connections, requests, is_cancelling, settings })
    }

    /// Makes the function.
    #[must_use]
    pub fn function(self, ports: &Ports) -> Disconnect<DynamoConnectionStore, DynamoRequestQueue> {
        let aws = self.aws.dated_by(&ports.clock);
        let client = aws.dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), self.connections);
        let queue = DynamoRequestQueue::new(client, self.requests, self.settings);
        let (clock, metrics) = (Arc::clone(&ports.clock), Arc::clone(&ports.metrics));
        Disconnect::new(connections, queue, clock, metrics).cancelling(self.is_cancelling)
    }
}

/// The `router` function, whose environment has been read.
#[derive(Debug)]
pub struct RouterSetup {
    aws: AwsEnvironment,
    connections: String,
    requests: String,
    rate_limits: Option<String>,
    threshold: Duration,
    inline_limit: Duration,
    settings: QueueSettings,
}

impl RouterSetup {
    /// Reads what [`lambda::router`](crate::lambda::router) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let aws = AwsEnvironment::read_with(&mut environment, http);
        let connections = environment.required("CONNECTIONS_TABLE");
        let requests = environment.required("REQUESTS_TABLE");
        let rate_limits = environment.optional("RATE_LIMITS_TABLE");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let (threshold, inline_limit) = (environment.async_threshold(), environment.inline_limit());
        let settings = environment.queue_settings();
        environment.finish()?;
        Ok(Self { aws, connections, requests, rate_limits, threshold, inline_limit, settings })
    }

    /// Makes the function, whose handlers run on the runtime that `handlers` belongs to: see [`Router::new`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime, where shared rate limits are to count in a table.
    #[must_use]
    pub fn function(
        self,
        app: Arc<App>,
        ports: &Ports,
        handlers: Handle,
    ) -> Router<DynamoConnectionStore, DynamoRequestQueue, ApiGatewayConnections> {
        let aws = self.aws.dated_by(&ports.clock);
        let client = aws.dynamodb();
        let connections = DynamoConnectionStore::new(client.clone(), self.connections);
        let queue = DynamoRequestQueue::new(client.clone(), self.requests, self.settings);
        let clients = ApiGatewayConnections::new(aws.management_api());
        let mut router = Router::new(app, connections, queue, clients, Arc::clone(&ports.clock), handlers);
        router.set_async_threshold(self.threshold);
        router.set_inline_limit(self.inline_limit);
        if let Some(table) = self.rate_limits {
            router.set_rate_limits(DynamoRateLimits::new(client, table));
        }
        router
    }
}

/// What the functions that run requests have read alike.
#[derive(Debug)]
struct ExecutorSetup {
    aws: AwsEnvironment,
    requests: String,
    dead_letters: String,
    settings: ExecutorSettings,
    queue_settings: QueueSettings,
}

/// What runs requests on Lambda.
pub type LambdaExecutor = Executor<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

impl ExecutorSetup {
    fn read<F: Fn(&str) -> Option<String>>(environment: &mut Environment<F>, http: SharedHttpClient) -> Self {
        let aws = AwsEnvironment::read_with(environment, http);
        let requests = environment.required("REQUESTS_TABLE");
        let dead_letters = environment.required("DEAD_LETTER_QUEUE_URL");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let (settings, queue_settings) = (environment.executor_settings(), environment.queue_settings());
        Self { aws, requests, dead_letters, settings, queue_settings }
    }

    fn into_executor(self, app: Arc<App>, ports: &Ports, handlers: Handle) -> LambdaExecutor {
        let aws = self.aws.dated_by(&ports.clock);
        Executor {
            app,
            queue: DynamoRequestQueue::new(aws.dynamodb(), self.requests, self.queue_settings),
            connections: ApiGatewayConnections::new(aws.management_api()),
            dead_letters: SqsDeadLetters::new(aws, Arc::clone(&ports.clock), self.dead_letters),
            clock: Arc::clone(&ports.clock),
            entropy: Arc::clone(&ports.entropy),
            handler_runtime: HandlerRuntime::on(handlers),
            settings: self.settings,
        }
    }
}

/// The `processor` function, whose environment has been read.
#[derive(Debug)]
pub struct ProcessorSetup {
    executor: ExecutorSetup,
    worker: String,
    concurrency: usize,
    inline_limit: Duration,
}

/// The processor as it stands on Lambda.
pub type LambdaProcessor =
    Processor<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters, LambdaDispatch>;

impl ProcessorSetup {
    /// Reads what [`lambda::processor`](crate::lambda::processor) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let executor = ExecutorSetup::read(&mut environment, http);
        let worker = environment.required("WORKER_FUNCTION");
        let (concurrency, inline_limit) = (environment.concurrency(), environment.inline_limit());
        environment.finish()?;
        Ok(Self { executor, worker, concurrency, inline_limit })
    }

    /// How many requests it runs at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Makes the function, whose handlers run on the runtime that `handlers` belongs to: see [`Executor::handler_runtime`].
    #[must_use]
    pub fn function(self, app: Arc<App>, ports: &Ports, handlers: Handle) -> LambdaProcessor {
        let aws = self.executor.aws.clone().dated_by(&ports.clock);
        let dispatch = LambdaDispatch::new(aws, Arc::clone(&ports.clock), self.worker);
        let mut processor = Processor::new(self.executor.into_executor(app, ports, handlers), dispatch);
        processor.set_concurrency(self.concurrency);
        processor.set_inline_limit(self.inline_limit);
        processor
    }
}

/// The `worker` function, whose environment has been read.
#[derive(Debug)]
pub struct WorkerSetup {
    executor: ExecutorSetup,
}

/// The worker as it stands on Lambda.
pub type LambdaWorker = Worker<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

impl WorkerSetup {
    /// Reads what [`lambda::worker`](crate::lambda::worker) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let executor = ExecutorSetup::read(&mut environment, http);
        environment.finish()?;
        Ok(Self { executor })
    }

    /// Makes the function, whose handlers run on the runtime that `handlers` belongs to: see [`Executor::handler_runtime`].
    #[must_use]
    pub fn function(self, app: Arc<App>, ports: &Ports, handlers: Handle) -> LambdaWorker {
        Worker::new(self.executor.into_executor(app, ports, handlers))
    }
}

/// The `sweeper` function, whose environment has been read.
#[derive(Debug)]
pub struct SweeperSetup {
    aws: AwsEnvironment,
    requests: String,
    dead_letters: String,
    settings: SweeperSettings,
    queue_settings: QueueSettings,
}

/// The sweeper as it stands on Lambda.
pub type LambdaSweeper = Sweeper<DynamoRequestQueue, ApiGatewayConnections, SqsDeadLetters>;

impl SweeperSetup {
    /// Reads what [`lambda::sweeper`](crate::lambda::sweeper) reads; its clients will call through `http`.
    ///
    /// # Errors
    /// All that is wrong with the environment.
    pub fn read<F: Fn(&str) -> Option<String>>(
        mut environment: Environment<F>,
        http: SharedHttpClient,
    ) -> Result<Self, ConfigError> {
        let aws = AwsEnvironment::read_with(&mut environment, http);
        let requests = environment.required("REQUESTS_TABLE");
        let dead_letters = environment.required("DEAD_LETTER_QUEUE_URL");
        environment.required("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI");
        let (settings, queue_settings) = (environment.sweeper_settings(), environment.queue_settings());
        environment.finish()?;
        Ok(Self { aws, requests, dead_letters, settings, queue_settings })
    }

    /// Makes the function.
    #[must_use]
    pub fn function(self, ports: &Ports) -> LambdaSweeper {
        let aws = self.aws.dated_by(&ports.clock);
        Sweeper {
            queue: DynamoRequestQueue::new(aws.dynamodb(), self.requests, self.queue_settings),
            connections: ApiGatewayConnections::new(aws.management_api()),
            dead_letters: SqsDeadLetters::new(aws, Arc::clone(&ports.clock), self.dead_letters),
            clock: Arc::clone(&ports.clock),
            metrics: Arc::clone(&ports.metrics),
            settings: self.settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::http_client;

    #[tokio::test]
    async fn every_function_says_all_that_it_lacks_and_starts_with_what_it_needs() {
        let bare = || Environment::new(|_: &str| None::<String>);
        let lacking = [
            ConnectSetup::read(bare(), http_client()).unwrap_err(),
            DisconnectSetup::read(bare(), http_client()).unwrap_err(),
            RouterSetup::read(bare(), http_client()).unwrap_err(),
            ProcessorSetup::read(bare(), http_client()).unwrap_err(),
            WorkerSetup::read(bare(), http_client()).unwrap_err(),
            SweeperSetup::read(bare(), http_client()).unwrap_err(),
        ];
        let management = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
        let all_that_is_lacking: [&[&str]; 6] = [
            &["CONNECTIONS_TABLE", "JWT_ALGORITHM"],
            &["CONNECTIONS_TABLE", "REQUESTS_TABLE"],
            &["CONNECTIONS_TABLE", "REQUESTS_TABLE", management],
            &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", "WORKER_FUNCTION", management],
            &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", management],
            &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", management],
        ];
        for (error, names) in lacking.iter().map(ToString::to_string).zip(all_that_is_lacking) {
            for name in names.iter().copied().chain(["AWS_REGION"]) {
                assert!(error.contains(&format!("{name} is not set")), "{error}");
            }
        }

        let full = || {
            Environment::new(|name: &str| {
                Some(
                    match name {
                        "JWT_ALGORITHM" => "HS256",
                        "JWT_KEY" => "0123456789abcdef0123456789abcdef",
                        "CONCURRENCY" => "3",
                        "SWEEPER_PACE_MS" => "1000",
                        "WORKER_FUNCTION" => "worker",
                        "DEAD_LETTER_QUEUE_URL" => "http://localhost/000000000000/dead-letters",
                        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "test",
                        "CONNECTIONS_TABLE" | "REQUESTS_TABLE" | "RATE_LIMITS_TABLE" => "table",
                        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI" => "http://localhost/prod",
                        _ => return None,
                    }
                    .to_owned(),
                )
            })
        };
        let (ports, app, http) = (Ports::system(), Arc::new(App::new()), http_client());
        let connect = ConnectSetup::read(full(), http.clone()).unwrap();
        connect.function(&ports).await.unwrap();
        let _ = DisconnectSetup::read(full(), http.clone()).unwrap().function(&ports);
        let router = RouterSetup::read(full(), http.clone()).unwrap();
        let _ = router.function(Arc::clone(&app), &ports, Handle::current());
        let processor = ProcessorSetup::read(full(), http.clone()).unwrap();
        assert_eq!(processor.concurrency(), 3);
        let _ = processor.function(Arc::clone(&app), &ports, Handle::current());
        let _ = WorkerSetup::read(full(), http.clone()).unwrap().function(app, &ports, Handle::current());
        let sweeper = SweeperSetup::read(full(), http).unwrap().function(&ports);
        assert_eq!(sweeper.settings.pace, Duration::from_secs(1));
    }
}
