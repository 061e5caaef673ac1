use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::AwsEnvironment;
use super::signed_call::{CallPolicy, SignedCall};
use crate::ids::RequestKey;
use crate::ports::Clock;
use crate::service_error::ServiceError;
use crate::worker::dispatch::{WorkerDispatch, WorkerEvent};

/// Characters that are percent-encoded in a path segment: all except letters, digits and `-._~` (RFC 3986,
/// section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Dispatches requests to the worker: invokes the worker's Lambda function asynchronously with the request's key.
#[derive(Clone, Debug)]
pub struct LambdaDispatch {
    aws: AwsEnvironment,
    clock: Arc<dyn Clock>,
    function: String,
}

impl LambdaDispatch {
    /// Creates a dispatcher to the worker. `function` is the name or the ARN of the worker's Lambda function.
    #[must_use]
    pub fn new(aws: AwsEnvironment, clock: Arc<dyn Clock>, function: impl Into<String>) -> Self {
        Self { aws, clock, function: function.into() }
    }

    /// Builds an asynchronous `Invoke` call of Lambda's API, version 2015-03-31. Lambda answers with status 202
    /// when it has queued the event.
    fn call(&self, event: &WorkerEvent) -> Result<SignedCall, serde_json::Error> {
        // Percent-encoded, because an ARN contains colons.
        let function = utf8_percent_encode(&self.function, RESERVED);
        Ok(SignedCall {
            service: "lambda",
            endpoint: self.aws.lambda_endpoint.as_ref().or(self.aws.endpoint.as_ref()).cloned(),
            path: format!("/2015-03-31/functions/{function}/invocations"),
            headers: vec![("content-type", "application/json"), ("x-amz-invocation-type", "Event")],
            body: serde_json::to_string(event)?,
        })
    }
}

impl WorkerDispatch for LambdaDispatch {
    async fn dispatch(&self, key: &RequestKey) -> Result<(), ServiceError> {
        let context = format!("request {key} was not dispatched to {}", self.function);
        let call = match self.call(&WorkerEvent::of(key)) {
            Ok(call) => call,
            Err(error) => return Err(ServiceError::refused(context, error)),
        };
        call.make(&self.aws, self.clock.now(), CallPolicy::SHORT, &context).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{UNREACHABLE, serve, with_endpoints, without_host_and_signature};
    use super::*;
    use crate::ports::{SystemClock, Timestamp};
    use crate::telemetry::Causes;

    /// A clock that always shows the same time.
    #[derive(Debug)]
    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    fn key() -> RequestKey {
        RequestKey::new(&"acme".into(), &"ann".into(), &"r1".into())
    }

    async fn dispatch(function: &str, answers: &[(u16, &str)]) -> (Result<(), ServiceError>, Vec<String>) {
        let (url, requests) = serve(answers);
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", UNREACHABLE), ("AWS_ENDPOINT_URL_LAMBDA", &url)]);
        let clock = Arc::new(At(Timestamp::from_secs(1_700_000_000)));
        let dispatched = LambdaDispatch::new(aws, clock, function).dispatch(&key()).await;
        (dispatched, requests.join().unwrap())
    }

    #[tokio::test]
    async fn lambda_dispatch_makes_one_signed_asynchronous_invoke_call() {
        let mut calls = Vec::new();
        for function in ["streamer-worker", "arn:aws:lambda:eu-west-1:123456789012:function:streamer-worker"]
        {
            let (dispatched, requests) = dispatch(function, &[(202, "")]).await;
            dispatched.unwrap();
            let [request] = &requests[..] else { panic!("expected exactly one call, found {requests:?}") };
            calls.push(without_host_and_signature(request));
        }
        insta::assert_snapshot!(calls.join("\n\n"));
    }

    #[tokio::test]
    async fn dispatch_is_tried_three_times_on_transient_errors_and_once_if_refused() {
        let busy = (
            429,
            r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#,
        );
        let (dispatched, requests) = dispatch("w", &[busy, (503, ""), (202, "")]).await;
        assert_eq!((dispatched.is_ok(), requests.len()), (true, 3));

        let (dispatched, requests) = dispatch("w", &[busy, (500, ""), busy]).await;
        let error = dispatched.unwrap_err();
        assert_eq!((error.is_transient(), requests.len()), (true, 3));
        assert!(Causes(&error).to_string().ends_with("HTTP 429, Rate Exceeded."), "{}", Causes(&error));

        let missing = (404, r#"{"Type":"User","Message":"Function not found: w"}"#);
        let (dispatched, requests) = dispatch("w", &[missing]).await;
        let error = dispatched.unwrap_err();
        assert_eq!((error.is_transient(), requests.len()), (false, 1));
        let expected = "request acme/ann/r1 was not dispatched to w: HTTP 404, Function not found: w";
        assert_eq!(Causes(&error).to_string(), expected);
    }

    #[tokio::test]
    async fn dispatch_to_an_unreachable_endpoint_fails_with_a_transient_error() {
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", UNREACHABLE)]);
        let error = LambdaDispatch::new(aws, Arc::new(SystemClock), "w").dispatch(&key()).await.unwrap_err();
        assert!(error.is_transient() && Causes(&error).to_string().contains("refused"), "{}", Causes(&error));
    }

    #[tokio::test(start_paused = true)]
    async fn dispatch_to_an_unresponsive_endpoint_fails_within_five_seconds() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let dispatch =
            LambdaDispatch::new(with_endpoints(&[("AWS_ENDPOINT_URL", &url)]), Arc::new(SystemClock), "w");
        let started = tokio::time::Instant::now();
        assert!(dispatch.dispatch(&key()).await.unwrap_err().is_transient());
        assert!(started.elapsed() <= std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
