//! The AWS SDK on a database in this process, without sockets.

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Credentials, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::database::DynamoDb;
use crate::faults::Caller;
use crate::sdk;

impl DynamoDb {
    /// An HTTP client for any AWS SDK client of DynamoDB or its streams, whose answers come from this database.
    ///
    /// Without a fault an answer is there at once, so that a paused clock stands still meanwhile.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// As [`http_client`](Self::http_client), for a function that runs in this process: faults may be about its calls
    /// alone, and may kill it.
    #[must_use]
    pub fn http_client_of(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }

    /// An SDK client on this database. It neither retries nor times out, so that a test sees each failure, never
    /// sleeps, and needs no timer.
    ///
    /// Faults strike it as they strike the stage's functions, unless they are narrowed to one of those by
    /// [`Call::by`](crate::faults::Call::by).
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client())
    }

    /// As [`client`](Self::client), for a function that runs in this process.
    #[must_use]
    pub fn client_of(&self, caller: Caller) -> aws_sdk_dynamodb::Client {
        self.client_with(self.http_client_of(caller))
    }

    /// As [`client`](Self::client), for the harness itself: no fault is injected into its calls, no observer hears of them, and
    /// no ledger has them. All answers are there immediately.
    #[must_use]
    #[doc(hidden)]
    pub fn quiet_client(&self) -> aws_sdk_dynamodb::Client {
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
