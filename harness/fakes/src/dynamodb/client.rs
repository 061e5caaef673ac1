//! AWS SDK clients that call the DynamoDB fake in this process, without sockets.

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::database::DynamoDb;
use crate::faults::Caller;
use crate::sdk;

impl DynamoDb {
    /// Returns an HTTP client for AWS SDK clients of DynamoDB and DynamoDB Streams. This database answers each call of
    /// the HTTP client.
    ///
    /// Without a fault, a call is answered immediately, so a paused tokio clock does not advance during the call.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// Returns an HTTP client like [`http_client`](Self::http_client) for the function `caller` in this process.
    ///
    /// Fault rules can match the calls of this function, and can kill the function's environment.
    #[must_use]
    pub fn http_client_for(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }

    /// Returns an SDK client of this database. The client neither retries nor times out, so that a test observes each
    /// failure, and no timer is started.
    ///
    /// Faults apply to the calls of this client, except faults whose rule names a function with
    /// [`Call::by`](crate::faults::Call::by).
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client())
    }

    /// Returns an SDK client like [`client`](Self::client) for the function `caller` in this process.
    ///
    /// Fault rules can match the calls of this function, and can kill the function's environment.
    #[must_use]
    pub fn client_for(&self, caller: Caller) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client_for(caller))
    }

    /// Returns an SDK client for the harness itself. No fault is injected into its calls, and neither observers nor
    /// ledgers record the calls. Each call is answered immediately.
    #[must_use]
    #[doc(hidden)]
    pub fn harness_client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(sdk::client(self.quiet_router(), None))
    }

    fn client_with(&self, http_client: SharedHttpClient) -> aws_sdk_dynamodb::Client {
        let region = self.settings.region.clone();
        let config = aws_sdk_dynamodb::Config::builder()
            .region(Region::new(region))
            .credentials_provider(Credentials::new("test", "test", None, None, "streamer-harness"))
            .endpoint_url("http://dynamodb.localhost")
            .http_client(http_client)
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }
}
