//! AWS SDK clients with a short cold start.
//!
//! All clients share one TLS implementation, rustls with ring, and trust only Amazon's root certificates. The
//! credentials come from the environment variables that Lambda sets.

mod lambda_dispatch;
mod retries;
mod signed_call;
mod sqs_dead_letters;
mod stored_value;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::config::{
    Credentials, Region, SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime::client::retries::RetryPartition;

pub use lambda_dispatch::LambdaDispatch;
pub use retries::RetryTransactions;
pub use sqs_dead_letters::SqsDeadLetters;
pub use stored_value::{StoredValue, StoredValueError};

use crate::config::Environment;
use crate::ports::{Clock, SystemClock};

/// Root certificates of Amazon Trust Services in PEM, which verify the certificates of all AWS endpoints.
const AMAZON_ROOTS: &[u8] = include_bytes!("aws/amazon-roots.pem");

/// Configuration that all AWS clients of a function share: HTTP client, region, credentials, clock and
/// endpoints.
#[derive(Clone, Debug)]
pub struct AwsEnvironment {
    http: SharedHttpClient,
    region: Region,
    credentials: Credentials,
    /// Retry quota of the SDK for this function. Other functions that run in the same process have their own quota.
    retries: RetryPartition,
    /// Clock for the dates of signed AWS requests.
    time: SharedTimeSource,
    /// Value of `AWS_ENDPOINT_URL`, the endpoint of each service that has no endpoint variable of its own, as in
    /// the AWS SDKs.
    endpoint: Option<String>,
    dynamodb_endpoint: Option<String>,
    management_endpoint: Option<String>,
    ssm_endpoint: Option<String>,
    secrets_manager_endpoint: Option<String>,
    lambda_endpoint: Option<String>,
    sqs_endpoint: Option<String>,
}

impl AwsEnvironment {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
    /// Timeout of a call including all its retries. It is well below the duration of a lease and below the
    /// gateway's timeout of 29 s.
    const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
    /// Maximum number of attempts of one DynamoDB call, including the first attempt.
    const ATTEMPTS: u32 = 5;
    /// Maximum wait before the second attempt of a DynamoDB call. The maximum doubles before each later attempt,
    /// and each actual wait is a random fraction of the maximum.
    const FIRST_BACKOFF: Duration = Duration::from_millis(100);

    /// Reads region, credentials and endpoints from the environment variables of a Lambda function.
    ///
    /// All clients of the returned configuration send their calls through `http`. A missing variable is recorded
    /// as a problem in `environment`.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>, http: SharedHttpClient) -> Self {
        let region = environment.required("AWS_REGION");
        let access_key = environment.required("AWS_ACCESS_KEY_ID");
        let secret_key = environment.required("AWS_SECRET_ACCESS_KEY");
        let session_token = environment.optional("AWS_SESSION_TOKEN");
        Self {
            http,
            region: Region::new(region),
            credentials: Credentials::new(access_key, secret_key, session_token, None, "environment"),
            retries: RetryPartition::custom("function").build(),
            time: SharedTimeSource::new(ClockTime(Arc::new(SystemClock))),
            endpoint: environment.optional("AWS_ENDPOINT_URL"),
            dynamodb_endpoint: environment.optional("AWS_ENDPOINT_URL_DYNAMODB"),
            management_endpoint: environment.optional("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"),
            ssm_endpoint: environment.optional("AWS_ENDPOINT_URL_SSM"),
            secrets_manager_endpoint: environment.optional("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            lambda_endpoint: environment.optional("AWS_ENDPOINT_URL_LAMBDA"),
            sqs_endpoint: environment.optional("AWS_ENDPOINT_URL_SQS"),
        }
    }

    /// Returns this configuration with `clock` as the clock for the dates of signed AWS requests.
    #[must_use]
    pub fn with_clock(self, clock: &Arc<dyn Clock>) -> Self {
        Self { time: SharedTimeSource::new(ClockTime(Arc::clone(clock))), ..self }
    }

    /// Creates a DynamoDB client with the usual retry policy. Only
    /// [`DynamoRateLimits`](crate::store::dynamodb::DynamoRateLimits) replaces this policy.
    ///
    /// A call is retried if it is throttled, fails with a server error, gets no response within 3 s, or
    /// [conflicts with a transaction](RetryTransactions). A call makes at most 5 attempts, with jittered
    /// backoff, and fails after 8 s at the latest. All calls of a function share one retry quota, which limits
    /// the number of retries while DynamoDB is down.
    ///
    /// A call does not end at the deadline of its invocation. The caller must drop the call's future at the
    /// deadline. A dropped call makes no more attempts.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::from_conf(self.dynamodb_config().build())
    }

    fn dynamodb_config(&self) -> aws_sdk_dynamodb::config::Builder {
        let retries = RetryConfig::standard()
            .with_max_attempts(Self::ATTEMPTS)
            .with_initial_backoff(Self::FIRST_BACKOFF);
        let mut config = aws_sdk_dynamodb::Config::builder()
            .http_client(self.http.clone())
            .region(self.region.clone())
            .credentials_provider(self.credentials.clone())
            .time_source(self.time.clone())
            .retry_config(retries)
            .retry_partition(self.retries.clone())
            .retry_classifier(RetryTransactions)
            .timeout_config(Self::timeouts());
        config.set_endpoint_url(self.dynamodb_endpoint.clone().or_else(|| self.endpoint.clone()));
        config
    }

    /// Creates a client of API Gateway's management API.
    ///
    /// The endpoint must be configured, because each WebSocket API has its own management endpoint. The client
    /// does not retry. If the response to a sent frame is lost, the frame may have arrived, and a retry could
    /// deliver the frame twice.
    #[must_use]
    pub fn management_api(&self) -> aws_sdk_apigatewaymanagement::Client {
        let mut config = aws_sdk_apigatewaymanagement::Config::builder()
            .http_client(self.http.clone())
            .region(self.region.clone())
            .credentials_provider(self.credentials.clone())
            .time_source(self.time.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(Self::timeouts());
        config.set_endpoint_url(self.management_endpoint.clone().or_else(|| self.endpoint.clone()));
        aws_sdk_apigatewaymanagement::Client::from_conf(config.build())
    }

    /// Returns the URL of the public endpoint of `service`, such as `sqs`, in the configured region.
    fn regional_endpoint(&self, service: &str) -> String {
        let is_in_china = self.region.as_ref().starts_with("cn-");
        let suffix = if is_in_china { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://{service}.{}.{suffix}", self.region)
    }

    fn timeouts() -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .operation_attempt_timeout(Self::ATTEMPT_TIMEOUT)
            .operation_timeout(Self::OPERATION_TIMEOUT)
            .build()
    }
}

/// An SDK time source that returns the time of a [`Clock`]. The SDK uses it to date signatures and to check whether
/// credentials have expired.
#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeSource for ClockTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now().as_millis())
    }
}

/// Creates the HTTP client of a function on Lambda. It uses rustls with ring, and trusts only Amazon's root
/// certificates.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(amazon_roots()).build_https()
}

/// Returns a TLS context that trusts only the embedded Amazon root certificates.
///
/// # Panics
/// If the embedded certificates are not valid PEM. A test ensures that they are valid.
fn amazon_roots() -> TlsContext {
    let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    TlsContext::builder().with_trust_store(roots).build().expect("embedded root certificates are valid PEM")
}

#[cfg(test)]
mod retry_tests;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use aws_sdk_apigatewaymanagement::primitives::Blob;
    use aws_sdk_dynamodb::error::SdkError;
    use aws_sdk_dynamodb::types::AttributeValue;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const LAMBDA: [(&str, &str); 4] = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "session"),
    ];

    pub(super) fn with_endpoints(endpoints: &[(&str, &str)]) -> AwsEnvironment {
        let variables = [&LAMBDA, endpoints].concat();
        let mut environment = Environment::of_variables(&variables);
        let aws = AwsEnvironment::from_env(&mut environment, http_client());
        assert_eq!(environment.finish(), Ok(()));
        aws
    }

    /// Starts a plain HTTP server that answers one request per connection. `answers` contains the status and the
    /// body of each response.
    ///
    /// Returns the server's URL, and a thread that ends after the last answer and returns the received requests
    /// in lower case.
    pub(super) fn serve(answers: &[(u16, &str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<(u16, String)> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let served = thread::spawn(move || {
            let requests = answers.into_iter().map(|(status, body)| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = BufReader::new(socket.try_clone().unwrap());
                let mut text = String::new();
                while !text.ends_with("\r\n\r\n") {
                    assert_ne!(
                        request.read_line(&mut text).unwrap(),
                        0,
                        "request has a complete head: {text}"
                    );
                }
                text.make_ascii_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let mut sent = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                request.read_exact(&mut sent).unwrap();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                socket.write_all((head + &body).as_bytes()).unwrap();
                text + &String::from_utf8(sent).unwrap().to_lowercase()
            });
            requests.collect()
        });
        (url, served)
    }

    /// Returns the text of an HTTP request for a snapshot. The host header and the signature are removed, because
    /// both depend on the random port of the test server.
    pub(super) fn without_host_and_signature(request: &str) -> String {
        let request = request.replace("\r\n", "\n");
        let (head, body) = request.split_once("\n\n").unwrap();
        let mut lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("host: ")).collect();
        for line in &mut lines {
            *line = line.split_once("signature=").map_or(*line, |(before, _)| before);
        }
        lines[1..].sort_unstable();
        format!("{}\n{body}", lines.join("\n"))
    }

    fn serve_one(body: &'static str) -> (String, JoinHandle<String>) {
        let (url, served) = serve(&[(200, body)]);
        (url, thread::spawn(move || served.join().unwrap().remove(0)))
    }

    /// URL at which no server listens: port 9 is the discard port, and only privileged processes can open it.
    pub(super) const UNREACHABLE: &str = "http://127.0.0.1:9";

    #[test]
    fn missing_aws_variables_are_reported_together() {
        let mut environment =
            Environment::of_variables(&[("AWS_SESSION_TOKEN", "session"), ("AWS_REGION", "")]);
        let _ = AwsEnvironment::from_env(&mut environment, http_client());
        let error = environment.finish().unwrap_err().to_string();
        for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(error.contains(&format!("{name} is not set")), "{error}");
        }
        assert!(!error.contains("ENDPOINT") && !error.contains("SESSION"), "{error}");
    }

    /// The HTTP client parses the root certificates at the first connection, and panics if one of them is
    /// invalid.
    #[tokio::test]
    async fn https_client_with_the_embedded_roots_starts_a_tls_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let first_byte = thread::spawn(move || {
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            byte
        });
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", &url)]);
        let once = aws_sdk_dynamodb::Config::builder().retry_config(RetryConfig::disabled());
        let error = aws.dynamodb().list_tables().customize().config_override(once).send().await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
        // RFC 8446, section 5.1: the first byte of a TLS handshake record is its content type, 22.
        assert_eq!(first_byte.join().unwrap(), [22]);
    }

    #[test]
    fn embedded_roots_have_the_fingerprints_published_by_amazon_trust_services() {
        let pem = str::from_utf8(AMAZON_ROOTS).unwrap();
        let certificates = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
        let fingerprints: Vec<String> = certificates
            .map(|rest| {
                let base64: String = rest.split("-----").next().unwrap().split_whitespace().collect();
                let der = STANDARD.decode(base64).unwrap();
                let digest = ring::digest::digest(&ring::digest::SHA256, &der);
                digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
            })
            .collect();
        // SHA-256 fingerprints of Amazon Root CA 1 to 4 and Starfield Services Root Certificate Authority -
        // G2, from the table of root CAs at Amazon Trust Services.
        let published = [
            "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
            "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
            "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
            "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
        ];
        assert_eq!(fingerprints, published);
    }

    #[tokio::test]
    async fn dynamodb_endpoint_variable_takes_precedence_over_the_general_endpoint() {
        for (own, general) in [(true, false), (false, true), (true, true)] {
            let (url, request) = serve_one(r#"{"Item":{"k":{"S":"v"}}}"#);
            let own = if own { url.as_str() } else { "" };
            let general = if own.is_empty() && general { url.as_str() } else { UNREACHABLE };
            let aws = with_endpoints(&[
                ("AWS_ENDPOINT_URL", general),
                ("AWS_ENDPOINT_URL_DYNAMODB", own),
                ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", UNREACHABLE),
            ]);
            let key = AttributeValue::S("k".into());
            let found = aws.dynamodb().get_item().table_name("t").key("k", key).send().await.unwrap();
            assert_eq!(found.item.unwrap()["k"], AttributeValue::S("v".into()));
            let head = request.join().unwrap();
            assert!(head.starts_with("post / http/1.1"), "{head}");
            assert!(head.contains("x-amz-target: dynamodb_20120810.getitem"), "{head}");
            assert!(head.contains("credential=akidexample/"), "{head}");
            assert!(head.contains("/eu-west-1/dynamodb/aws4_request"), "{head}");
            assert!(head.contains("x-amz-security-token: session"), "{head}");
        }
    }

    #[tokio::test]
    async fn management_api_call_keeps_the_stage_path_of_its_endpoint() {
        for specific in [true, false] {
            let (url, request) = serve_one("");
            let url = format!("{url}/prod");
            let (own, general) = if specific { (url.as_str(), UNREACHABLE) } else { ("", url.as_str()) };
            let aws = with_endpoints(&[
                ("AWS_ENDPOINT_URL", general),
                ("AWS_ENDPOINT_URL_DYNAMODB", UNREACHABLE),
                ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", own),
            ]);
            aws.management_api()
                .post_to_connection()
                .connection_id("R1km=")
                .data(Blob::new("{}"))
                .send()
                .await
                .unwrap();
            let head = request.join().unwrap();
            assert!(head.starts_with("post /prod/@connections/r1km%3d http/1.1"), "{head}");
            assert!(head.contains("/eu-west-1/execute-api/aws4_request"), "{head}");
        }
    }

    #[test]
    fn debug_output_of_aws_environment_hides_the_credentials() {
        let output = format!("{:?}", with_endpoints(&[]));
        assert!(!output.contains("secret\"") && !output.contains("session\""), "{output}");
    }
}
