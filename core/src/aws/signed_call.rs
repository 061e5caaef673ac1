//! Calls of AWS services for which no SDK client is linked.
//!
//! This module signs the calls, and sends them through the HTTP client that all SDK clients share.

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

/// A signed POST request to an AWS service.
#[derive(Debug)]
pub(super) struct SignedCall {
    /// Name of the called service in the signature and in the regional host name, such as `sqs`.
    pub(super) service: &'static str,
    /// Configured endpoint URL of the called service; `None` for the service's regional endpoint.
    pub(super) endpoint: Option<String>,
    /// Path of the called URL, percent-encoded.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) body: String,
}

/// Retry policy of a signed call: the number of tries, their timeout, and the waits between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallPolicy {
    /// Maximum number of tries of the call, including the first try.
    pub(super) tries: u32,
    /// Timeout of each single try.
    pub(super) timeout: Duration,
    /// Wait before the second try. The wait before the third try is twice as long, and so on.
    pub(super) interval: Duration,
}

impl CallPolicy {
    /// Policy for calls that delay the processing of a request: three tries within five seconds.
    pub(super) const SHORT: Self =
        Self { tries: 3, timeout: Duration::from_millis(1_500), interval: Duration::from_millis(100) };
}

impl SignedCall {
    /// Makes the call, and retries transient failures as `policy` says. Returns the body of the response.
    ///
    /// `context` is the text of the returned error, which names the failed operation. The waits between tries
    /// have no jitter, because a function makes few signed calls.
    pub(super) async fn make(
        &self,
        aws: &AwsEnvironment,
        now: Timestamp,
        policy: CallPolicy,
        context: &str,
    ) -> Result<Vec<u8>, ServiceError> {
        let mut tries = 1;
        loop {
            // Boxed because the SDK's futures are large.
            let tried = timeout(policy.timeout, Box::pin(self.try_once(aws, now))).await;
            let failed =
                match tried.unwrap_or_else(|_| Err(FailedTry::transient("no response within the timeout"))) {
                    Ok(body) => return Ok(body),
                    Err(failed) => failed,
                };
            if failed.is_final {
                return Err(ServiceError::refused(context, failed.source));
            }
            if tries >= policy.tries {
                return Err(ServiceError::transient(context, failed.source));
            }
            tracing::warn!(
                service = self.service, context, error = %Causes(failed.source.as_ref()),
                "AWS call failed; retrying"
            );
            sleep(policy.interval * tries).await;
            tries += 1;
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the SDK's enum is non-exhaustive, and all its other variants are transient failures"
    )]
    async fn try_once(&self, aws: &AwsEnvironment, now: Timestamp) -> Result<Vec<u8>, FailedTry> {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| aws.regional_endpoint(self.service));
        let endpoint = endpoint.trim_end_matches('/');
        let request = self.signed(aws, endpoint, now).map_err(FailedTry::permanent)?;
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
            .serializer(|request: SignedRequest| Ok(request.0))
            .deserializer(|response: &HttpResponse| {
                let body = response.body().bytes().unwrap_or_default();
                if response.status().is_success() {
                    Ok(body.to_vec())
                } else {
                    let kind = response.headers().get("x-amzn-errortype");
                    Err(OrchestratorError::operation(ErrorResponse::new(
                        response.status().as_u16(),
                        kind,
                        body,
                    )))
                }
            })
            .build();
        operation.invoke(SignedRequest(request)).await.map_err(|error| match error {
            SdkError::ServiceError(error) => {
                let response = error.into_err();
                if response.is_transient {
                    FailedTry::transient(response)
                } else {
                    FailedTry::permanent(response)
                }
            }
            SdkError::ConstructionFailure(_) => FailedTry::permanent(error),
            _ => match error.into_source() {
                Ok(source) => FailedTry::transient(source),
                Err(error) => FailedTry::transient(error),
            },
        })
    }

    /// Builds the HTTP request to `endpoint`, signed with AWS Signature Version 4.
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
        // The request contains only the path. The SDK's orchestrator adds the endpoint when it sends the request.
        let mut request = http::Request::post(&self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(SdkBody::from(self.body.as_str()))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(HttpRequest::try_from(request)?)
    }
}

/// A signed request as the input of the SDK's orchestrator. The `Debug` output hides the request, because the request
/// must not appear in a log.
struct SignedRequest(HttpRequest);

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedRequest")
    }
}

/// The failure of one try of a signed call.
struct FailedTry {
    /// `true` if the call must not be retried, because another try would fail too.
    is_final: bool,
    source: Source,
}

impl FailedTry {
    fn transient(source: impl Into<Source>) -> Self {
        Self { is_final: false, source: source.into() }
    }

    fn permanent(source: impl Into<Source>) -> Self {
        Self { is_final: true, source: source.into() }
    }
}

/// The error in a response of an AWS service.
#[derive(Debug)]
struct ErrorResponse {
    status: u16,
    code: String,
    message: String,
    is_transient: bool,
}

impl ErrorResponse {
    /// Parses an error response. `kind` is the header `x-amzn-errortype`, which contains the error code if the
    /// service omits the code from the body, as Lambda does.
    fn new(status: u16, kind: Option<&str>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |names: [&str; 2]| names.iter().find_map(|name| body[name].as_str());
        let code = text(["__type", "code"]).or(kind).unwrap_or_default();
        // The code may have the form `namespace#Code:url`.
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
        let transient = ["Throttl", "LimitExceeded", "TooManyRequests"];
        // Lambda answers 409 while the invoked function is being updated.
        let is_transient =
            status >= 500 || matches!(status, 409 | 429) || transient.iter().any(|part| code.contains(part));
        let message = text(["message", "Message"]).unwrap_or_default().to_owned();
        Self { status, code: code.to_owned(), message, is_transient }
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        [&self.code, &self.message]
            .into_iter()
            .filter(|text| !text.is_empty())
            .try_for_each(|text| write!(f, ", {text}"))
    }
}

impl Error for ErrorResponse {}
