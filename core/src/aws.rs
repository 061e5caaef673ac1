//! SDK clients that start fast: one TLS stack on ring, Amazon's own root certificates, credentials from the environment.

use std::time::Duration;

use aws_sdk_dynamodb::config::{
    Credentials, Region, SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use crate::config::Environment;

/// The roots that every AWS endpoint's certificate leads to, from Amazon Trust Services.
const AMAZON_ROOTS: &[u8] = include_bytes!("aws/amazon-roots.pem");

/// What every SDK client of a function shares.
#[derive(Clone, Debug)]
pub struct AwsEnvironment {
    http: SharedHttpClient,
    region: Region,
    credentials: Credentials,
    /// `AWS_ENDPOINT_URL`, and the variable of each service, which goes before it: as the SDKs read them.
    endpoint: Option<String>,
    dynamodb_endpoint: Option<String>,
    management_endpoint: Option<String>,
}

impl AwsEnvironment {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
    /// A call with all its retries: short against a lease, and against the gateway's patience.
    const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

    /// Reads what Lambda, and nobody else, puts into a function's environment.
    ///
    /// What is missing is left to `environment` to report.
    pub fn read<F: Fn(&str) -> Option<String>>(environment: &mut Environment<F>) -> Self {
        let region = environment.required("AWS_REGION");
        let access_key = environment.required("AWS_ACCESS_KEY_ID");
        let secret_key = environment.required("AWS_SECRET_ACCESS_KEY");
        let session_token = environment.optional("AWS_SESSION_TOKEN");
        Self {
            http: http_client(),
            region: Region::new(region),
            credentials: Credentials::new(access_key, secret_key, session_token, None, "environment"),
            endpoint: environment.optional("AWS_ENDPOINT_URL"),
            dynamodb_endpoint: environment.optional("AWS_ENDPOINT_URL_DYNAMODB"),
            management_endpoint: environment.optional("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"),
        }
    }

    /// A DynamoDB client.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::Config::builder()
            .http_client(self.http.clone())
            .region(self.region.clone())
            .credentials_provider(self.credentials.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .timeout_config(Self::timeouts());
        config.set_endpoint_url(self.dynamodb_endpoint.clone().or_else(|| self.endpoint.clone()));
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// A client of the gateway's management API, which has no endpoint of its own: it must be configured.
    ///
    /// It does not retry: a frame whose answer is lost may have arrived, and would come twice.
    #[must_use]
    pub fn management_api(&self) -> aws_sdk_apigatewaymanagement::Client {
        let mut config = aws_sdk_apigatewaymanagement::Config::builder()
            .http_client(self.http.clone())
            .region(self.region.clone())
            .credentials_provider(self.credentials.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(Self::timeouts());
        config.set_endpoint_url(self.management_endpoint.clone().or_else(|| self.endpoint.clone()));
        aws_sdk_apigatewaymanagement::Client::from_conf(config.build())
    }

    fn timeouts() -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .operation_attempt_timeout(Self::ATTEMPT_TIMEOUT)
            .operation_timeout(Self::OPERATION_TIMEOUT)
            .build()
    }
}

/// # Panics
/// Never: the embedded certificates are parsed by a test.
fn http_client() -> SharedHttpClient {
    let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let context =
        TlsContext::builder().with_trust_store(roots).build().expect("the embedded roots are valid");
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https()
}
