use std::error::Error;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{AwsEnvironment, amazon_roots};
use crate::ports::Timestamp;
use crate::telemetry::Causes;

/// A value that is kept outside of a function's environment, and read once, when it starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoredValue {
    /// A parameter of Systems Manager, by its name or ARN; a `SecureString` is decrypted.
    SsmParameter(String),
    /// The text of a secret of Secrets Manager, by its name or ARN, in its current version.
    Secret(String),
}

impl StoredValue {
    const TRIES: u32 = 3;
    const TIMEOUT: Duration = Duration::from_millis(2_500);
    const RETRY_INTERVAL: Duration = Duration::from_millis(200);

    /// Reads the value.
    ///
    /// One signed POST, which adds 21 KB to `connect` for both services; the SDK's client of Secrets Manager alone would add
    /// 162 KB. It is tried three times, and given up well within the ten seconds that Lambda gives a function to start.
    ///
    /// # Errors
    /// When there is no such value, it is not permitted to be read, is no text, or its service does not answer.
    pub async fn read(&self, aws: &AwsEnvironment, now: Timestamp) -> Result<String, StoredValueError> {
        let connector = connector();
        let mut tries = 1;
        loop {
            let read = timeout(Self::TIMEOUT, self.try_to_read(aws, now, &connector)).await;
            let failed = match read.unwrap_or_else(|_| Err(Failed::later("it did not answer in time"))) {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if failed.is_final || tries == Self::TRIES {
                return Err(StoredValueError { value: self.to_string(), source: failed.source });
            }
            tracing::warn!(error = %Causes(failed.source.as_ref()), "{self} was not read: trying again");
            sleep(Self::RETRY_INTERVAL * tries).await;
            tries += 1;
        }
    }

    async fn try_to_read(
        &self,
        aws: &AwsEnvironment,
        now: Timestamp,
        connector: &Connector,
    ) -> Result<String, Failed> {
        let (service, target, own_endpoint, body) = match self {
            Self::SsmParameter(name) => (
                "ssm",
                "AmazonSSM.GetParameter",
                &aws.ssm_endpoint,
                json!({"Name": name, "WithDecryption": true}),
            ),
            Self::Secret(id) => (
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                &aws.secrets_manager_endpoint,
                json!({"SecretId": id}),
            ),
        };
        let endpoint = own_endpoint.as_ref().or(aws.endpoint.as_ref()).cloned().unwrap_or_else(|| {
            let suffix =
                if aws.region.as_ref().starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://{service}.{}.{suffix}", aws.region)
        });
        let request =
            signed(aws, service, target, &endpoint, body.to_string(), now).map_err(Failed::for_good)?;
        let response = connector.call(request).await.map_err(Failed::later)?;
        let status = response.status();
        let body = ByteStream::new(response.into_body()).collect().await.map_err(Failed::later)?;
        let body: Value = serde_json::from_slice(&body.into_bytes()).unwrap_or_default();
        if !status.is_success() {
            let refused = Refused::new(status.as_u16(), &body);
            return Err(if refused.may_pass { Failed::later(refused) } else { Failed::for_good(refused) });
        }
        let (text, what_else) = match self {
            Self::SsmParameter(_) => (&body["Parameter"]["Value"], "the answer has no Parameter.Value"),
            Self::Secret(_) => (&body["SecretString"], "it is binary, and must be text"),
        };
        text.as_str().map(str::to_owned).ok_or_else(|| Failed::for_good(what_else))
    }
}

impl fmt::Display for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SsmParameter(name) => write!(f, "the SSM parameter {name:?}"),
            Self::Secret(id) => write!(f, "the secret {id:?}"),
        }
    }
}

/// A connector of its own: it is used once, and what it connects to never again.
fn connector() -> Connector {
    let settings = HttpConnectorSettings::builder().connect_timeout(AwsEnvironment::CONNECT_TIMEOUT).build();
    Connector::builder()
        .connector_settings(settings)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(amazon_roots())
        .build()
}

type Request = aws_smithy_runtime_api::client::orchestrator::HttpRequest;

/// The request of AWS's JSON protocol (1.1), signed with Signature Version 4.
fn signed(
    aws: &AwsEnvironment,
    service: &str,
    target: &str,
    endpoint: &str,
    body: String,
    now: Timestamp,
) -> Result<Request, Box<dyn Error + Send + Sync>> {
    let url = format!("{}/", endpoint.trim_end_matches('/'));
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    let identity = aws.credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(aws.region.as_ref())
        .name(service)
        .time(UNIX_EPOCH + Duration::from_millis(now.as_millis()))
        .settings(SigningSettings::default())
        .build()?
        .into();
    let signable = SignableRequest::new(
        "POST",
        url.as_str(),
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    )?;
    let (instructions, _) = sign(signable, &params)?.into_parts();
    let mut request = http::Request::post(&url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.body(SdkBody::from(body))?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(Request::try_from(request)?)
}

/// A try that failed.
struct Failed {
    is_final: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl Failed {
    fn later(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { is_final: false, source: source.into() }
    }

    fn for_good(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { is_final: true, source: source.into() }
    }
}

/// What the service said instead of the value.
#[derive(Debug)]
struct Refused {
    status: u16,
    code: String,
    message: String,
    may_pass: bool,
}

impl Refused {
    fn new(status: u16, body: &Value) -> Self {
        let text = |names: [&str; 2]| names.iter().find_map(|name| body[name].as_str()).unwrap_or_default();
        let code = text(["__type", "code"]);
        // A namespace may stand before it.
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        let may_pass = status >= 500 || code.contains("Throttl") || code.contains("LimitExceeded");
        Self { status, code, message: text(["message", "Message"]).to_owned(), may_pass }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        [&self.code, &self.message]
            .into_iter()
            .filter(|text| !text.is_empty())
            .try_for_each(|text| write!(f, ", {text}"))
    }
}

impl Error for Refused {}

/// A stored value that could not be read.
#[derive(Debug)]
pub struct StoredValueError {
    value: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for StoredValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read", self.value)
    }
}

impl Error for StoredValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOWHERE, serve, with_endpoints};
    use super::*;
    use crate::auth::test_keys::TestKey;
    use crate::auth::{Algorithm, TokenSettings};
    use crate::config::TokenKey;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn parameter() -> StoredValue {
        StoredValue::SsmParameter("/streamer/jwt-key".into())
    }

    fn secret() -> StoredValue {
        StoredValue::Secret("streamer/JWKS".into())
    }

    async fn read(value: &StoredValue, answers: &[(u16, &str)]) -> (Result<String, String>, Vec<String>) {
        let (url, requests) = serve(answers);
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", &url)]);
        let read = value.read(&aws, NOW).await.map_err(|error| Causes(&error).to_string());
        (read, requests.join().unwrap())
    }

    #[tokio::test]
    async fn a_value_is_read_with_one_signed_call() {
        let kept = [
            (parameter(), r#"{"Parameter":{"Name":"/streamer/jwt-key","Value":"the key"}}"#),
            (secret(), r#"{"Name":"streamer/JWKS","SecretString":"the key","VersionStages":["AWSCURRENT"]}"#),
        ];
        let mut sent = Vec::new();
        for (value, answer) in kept {
            let (read, requests) = read(&value, &[(200, answer)]).await;
            assert_eq!(read.as_deref(), Ok("the key"));
            let [request] = &requests[..] else { panic!("{requests:?}") };
            let request = request.replace("\r\n", "\n");
            let (head, body) = request.split_once("\n\n").unwrap();
            let mut lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("host: ")).collect();
            // The signature is over the host as well, whose port is another each time.
            for line in &mut lines {
                *line = line.split_once("signature=").map_or(*line, |(before, _)| before);
            }
            lines[1..].sort_unstable();
            sent.push(format!("{}\n{body}", lines.join("\n")));
        }
        insta::assert_snapshot!(sent.join("\n\n"));
    }

    #[tokio::test]
    async fn what_will_not_be_read_is_said_at_once_and_with_the_services_own_words() {
        let answers = [
            (parameter(), 400, r#"{"__type":"ParameterNotFound"}"#),
            (
                parameter(),
                400,
                r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not authorized to perform: ssm:GetParameter"}"#,
            ),
            (
                secret(),
                400,
                r#"{"__type":"ResourceNotFoundException","message":"Secrets Manager can't find it"}"#,
            ),
            (secret(), 200, r#"{"SecretBinary":"AAAA"}"#),
            (parameter(), 200, "{}"),
            (secret(), 403, "<html>a proxy's own words</html>"),
        ];
        let mut report = Vec::new();
        for (value, status, body) in answers {
            let (read, requests) = read(&value, &[(status, body)]).await;
            assert_eq!(requests.len(), 1);
            report.push(read.unwrap_err());
        }
        insta::assert_snapshot!(report.join("\n"));
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_three_times() {
        let throttled = (400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        let failed = (500, r#"{"__type":"InternalServiceError"}"#);
        let (value, requests) = read(&secret(), &[throttled, failed, (200, r#"{"SecretString":"s"}"#)]).await;
        assert_eq!((value.as_deref(), requests.len()), (Ok("s"), 3));
        let (value, requests) = read(&secret(), &[failed, failed, throttled]).await;
        assert_eq!(requests.len(), 3);
        let error = value.unwrap_err();
        assert!(error.ends_with("cannot be read: HTTP 400, ThrottlingException, Rate exceeded"), "{error}");
    }

    #[tokio::test]
    async fn tokens_are_verified_with_the_key_set_that_is_kept_there() {
        let key = TestKey::new(Algorithm::EdDsa);
        let set = json!({"keys": [key.jwk("k1")]}).to_string();
        let settings = TokenSettings { algorithms: vec![Algorithm::EdDsa], ..TokenSettings::default() };
        let verifier = async |text: &str| {
            let answer = json!({"SecretString": text}).to_string();
            let (url, _) = serve(&[(200, answer.as_str())]);
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", &url)]);
            TokenKey::Stored(secret(), settings.clone()).verifier(&aws, NOW).await
        };
        let token = key.sign_as("k1", &json!({"sub": "ann", "tenant_id": "acme", "exp": 1_700_000_060}));
        assert_eq!(verifier(&set).await.unwrap().verify(&token, NOW).unwrap().user, "ann".into());
        let refused = verifier("not a key").await.unwrap_err().to_string();
        let expected =
            "the environment of this function is wrong: the secret \"streamer/JWKS\" is no public key in PEM";
        assert!(refused.starts_with(expected), "{refused}");
    }

    #[tokio::test]
    async fn a_service_is_looked_for_at_its_own_endpoint_before_the_general_one() {
        for (value, variable) in
            [(parameter(), "AWS_ENDPOINT_URL_SSM"), (secret(), "AWS_ENDPOINT_URL_SECRETS_MANAGER")]
        {
            let (url, requests) = serve(&[(200, r#"{"SecretString":"s","Parameter":{"Value":"s"}}"#)]);
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", NOWHERE), (variable, &url)]);
            assert_eq!(value.read(&aws, NOW).await.unwrap(), "s");
            requests.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_service_that_is_out_of_reach_is_given_up_soon() {
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", NOWHERE)]);
        let error = secret().read(&aws, NOW).await.unwrap_err();
        let causes = Causes(&error).to_string();
        assert!(causes.starts_with("the secret \"streamer/JWKS\" cannot be read: "), "{causes}");
        assert!(causes.contains("refused"), "{causes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_answer_is_given_up_before_the_function_must_have_started() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let aws =
            with_endpoints(&[("AWS_ENDPOINT_URL", &format!("http://{}", silent.local_addr().unwrap()))]);
        let asked = tokio::time::Instant::now();
        secret().read(&aws, NOW).await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    }
}
