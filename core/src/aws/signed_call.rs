//! Calls of services that no SDK client is linked for: signed here, made through the client that all others share.

use std::error::Error;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::AwsEnvironment;
use crate::ports::Timestamp;
use crate::service_error::ServiceError;
use crate::telemetry::Causes;

type Source = Box<dyn Error + Send + Sync>;

/// A POST to a service.
#[derive(Debug)]
pub(super) struct SignedCall {
    /// As the signature names it, and its own host.
    pub(super) service: &'static str,
    /// Scheme and host; the service's own in this region where there is none.
    pub(super) endpoint: Option<String>,
    /// What comes after the host, percent-encoded.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) body: String,
}

/// How long a service is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How often it is asked at most, the first time included.
    pub(super) tries: u32,
    /// How long each answer may take.
    pub(super) timeout: Duration,
    /// The wait before the second try, and that much more before each that follows.
    pub(super) interval: Duration,
}

impl Patience {
    /// For calls that a request's run waits for: ends within five seconds.
    pub(super) const SHORT: Self =
        Self { tries: 3, timeout: Duration::from_millis(1_500), interval: Duration::from_millis(100) };
}

impl SignedCall {
    /// Makes the call until it succeeds, is refused for good, or patience ends; `what` says what it is for.
    ///
    /// Waits have no jitter: a function makes few such calls, and what fails now is tried again by whoever asked for it.
    pub(super) async fn make(
        &self,
        aws: &AwsEnvironment,
        now: Timestamp,
        patience: Patience,
        what: &str,
    ) -> Result<Vec<u8>, ServiceError> {
        let mut tries = 1;
        loop {
            // Boxed, since the SDK's futures are large.
            let tried = timeout(patience.timeout, Box::pin(self.try_once(aws, now))).await;
            let failed = match tried.unwrap_or_else(|_| Err(Failed::later("it did not answer in time"))) {
                Ok(body) => return Ok(body),
                Err(failed) => failed,
            };
            if failed.is_final {
                return Err(ServiceError::refused(what, failed.source));
            }
            if tries >= patience.tries {
                return Err(ServiceError::transient(what, failed.source));
            }
            tracing::warn!(error = %Causes(failed.source.as_ref()), "{what} failed: trying again");
            sleep(patience.interval * tries).await;
            tries += 1;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enum is open: what is not named is alike")]
    async fn try_once(&self, aws: &AwsEnvironment, now: Timestamp) -> Result<Vec<u8>, Failed> {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| aws.own_endpoint(self.service));
        let endpoint = endpoint.trim_end_matches('/');
        let request = self.signed(aws, endpoint, now).map_err(Failed::for_good)?;
        let timeouts = TimeoutConfig::builder().connect_timeout(AwsEnvironment::CONNECT_TIMEOUT).build();
        let operation = Operation::builder()
            .service_name(self.service)
            .operation_name("call")
            .http_client(aws.http.clone())
            .endpoint_url(endpoint)
            .sleep_impl(TokioSleep::new())
            .time_source(aws.time.clone())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .no_auth()
            .no_retry()
            .serializer(|request: Prepared| Ok(request.0))
            .deserializer(|response: &HttpResponse| {
                let body = response.body().bytes().unwrap_or_default();
                if response.status().is_success() {
                    Ok(body.to_vec())
                } else {
                    let kind = response.headers().get("x-amzn-errortype");
                    Err(OrchestratorError::operation(Refused::new(response.status().as_u16(), kind, body)))
                }
            })
            .build();
        operation.invoke(Prepared(request)).await.map_err(|error| match error {
            SdkError::ServiceError(error) => {
                let refused = error.into_err();
                if refused.may_pass { Failed::later(refused) } else { Failed::for_good(refused) }
            }
            SdkError::ConstructionFailure(_) => Failed::for_good(error),
            _ => match error.into_source() {
                Ok(source) => Failed::later(source),
                Err(error) => Failed::later(error),
            },
        })
    }

    /// The request below `endpoint`, signed with Signature Version 4.
    fn signed(&self, aws: &AwsEnvironment, endpoint: &str, now: Timestamp) -> Result<HttpRequest, Source> {
        let identity = aws.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(aws.region.as_ref())
            .name(self.service)
            .time(UNIX_EPOCH + Duration::from_millis(now.as_millis()))
            .settings(SigningSettings::default())
            .build()?
            .into();
        let signable = SignableRequest::new(
            "POST",
            format!("{endpoint}{}", self.path),
            self.headers.iter().copied(),
            SignableBody::Bytes(self.body.as_bytes()),
        )?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        // The endpoint comes before the path when it is sent.
        let mut request = http::Request::post(&self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(SdkBody::from(self.body.as_str()))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(HttpRequest::try_from(request)?)
    }
}

/// A request on its way to the orchestrator, whose inputs have a `Debug` form: this one's is not for a log.
struct Prepared(HttpRequest);

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared")
    }
}

/// A try that failed.
struct Failed {
    is_final: bool,
    source: Source,
}

impl Failed {
    fn later(source: impl Into<Source>) -> Self {
        Self { is_final: false, source: source.into() }
    }

    fn for_good(source: impl Into<Source>) -> Self {
        Self { is_final: true, source: source.into() }
    }
}

/// What the service said instead of doing what it was asked to.
#[derive(Debug)]
struct Refused {
    status: u16,
    code: String,
    message: String,
    may_pass: bool,
}

impl Refused {
    /// `kind` is the header that names the error where the body does not, as Lambda's.
    fn new(status: u16, kind: Option<&str>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |names: [&str; 2]| names.iter().find_map(|name| body[name].as_str());
        let code = text(["__type", "code"]).or(kind).unwrap_or_default();
        // A namespace may stand before it, and a URL after it.
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
        let passing = ["Throttl", "LimitExceeded", "TooManyRequests"];
        // 409: the function is just being updated.
        let may_pass =
            status >= 500 || matches!(status, 409 | 429) || passing.iter().any(|part| code.contains(part));
        let message = text(["message", "Message"]).unwrap_or_default().to_owned();
        Self { status, code: code.to_owned(), message, may_pass }
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
