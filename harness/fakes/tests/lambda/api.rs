//! Tests of Lambda's HTTP API, which SDKs call.

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use streamer_fakes::faults::{Call, Fault, Faults};
use streamer_fakes::lambda::{AsyncSettings, FunctionConfig, Functions, Options};
use tower::ServiceExt as _;

use super::asynchronous::{self, Scripted};
use super::in_process::{CommandFunction, functions};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:f";

fn stage(faults: &Faults) -> Functions {
    let mut config = FunctionConfig::in_process("f", Arc::new(CommandFunction::default()));
    config.reserved_concurrency = Some(5);
    functions(config, Options { faults: faults.clone(), ..Options::default() })
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> (u16, &str, Value) {
        (self.status.as_u16(), self.header("x-amzn-errortype"), self.json())
    }
}

async fn send(functions: &Functions, request: Request<Body>) -> Answer {
    let (head, body) = functions.router().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: head.status, headers: head.headers, body }
}

async fn invoke(functions: &Functions, name: &str, kind: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request = Request::post(format!("/2015-03-31/functions/{name}/invocations"));
    if let Some(kind) = kind {
        request = request.header("x-amz-invocation-type", kind);
    }
    send(functions, request.body(body.into()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn lambda_api_invokes_a_function_by_name_arn_or_partial_arn() {
    let functions = stage(&Faults::default());
    let escaped = ARN.replace(':', "%3A");
    for name in ["f", ARN, &escaped, "000000000000:function:f", "f:$LATEST", &format!("{ARN}:$LATEST")] {
        let answer = invoke(&functions, name, None, "{}").await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!(1)), "{name}");
        assert_eq!(answer.header("x-amz-executed-version"), "$LATEST");
        assert_eq!(answer.header("x-amz-function-error"), "");
    }
    let answer = invoke(&functions, "f", Some("RequestResponse"), r#"{"do":"describe"}"#).await;
    assert_eq!(answer.json()["request_id"], answer.header("x-amzn-requestid"));
    assert_eq!(invoke(&functions, "f", None, "").await.json(), json!(1), "a missing payload is accepted");
}

#[tokio::test(start_paused = true)]
async fn error_of_a_failed_function_is_the_response_body_and_is_flagged_by_a_header() {
    let answer = invoke(&stage(&Faults::default()), "f", None, r#"{"do":"fail"}"#).await;
    assert_eq!((answer.status, answer.header("x-amz-function-error")), (StatusCode::OK, "Unhandled"));
    assert_eq!(answer.json(), json!({ "errorType": "ReportError", "errorMessage": "no such format" }));
}

#[tokio::test(start_paused = true)]
async fn async_invocation_is_accepted_with_202_and_a_dry_run_with_204() {
    let (code, mut invoked) = Scripted::new([]);
    let functions = asynchronous::Stage::new(vec![asynchronous::config("f", code, AsyncSettings::default())]);
    let functions = functions.functions;
    let answer = invoke(&functions, "f", Some("Event"), "{}").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0));
    assert_eq!(invoked.recv().await.unwrap().1.request_id, answer.header("x-amzn-requestid"));
    assert_eq!(answer.header("x-amzn-requestid").len(), 36);
    let answer = invoke(&functions, "f", Some("DryRun"), "{}").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NO_CONTENT, 0));
    tokio::time::sleep(Duration::from_hours(7)).await;
    assert!(invoked.try_recv().is_err(), "a dry run does not invoke the function");
}

#[tokio::test(start_paused = true)]
async fn lambda_api_errors_have_the_form_that_sdks_parse() {
    let faults = Faults::default();
    let functions = stage(&faults);
    let answer = invoke(&functions, "g", None, "{}").await;
    let body = json!({ "Type": "User", "Message": "Function not found: g" });
    assert_eq!(answer.error(), (404, "ResourceNotFoundException", body));
    let request = Request::post("/2015-03-31/functions/f/invocations?Qualifier=live").body(Body::empty());
    let answer = send(&functions, request.unwrap()).await;
    let body = json!({ "Type": "User", "Message": "Function not found: f:live" });
    assert_eq!(answer.error(), (404, "ResourceNotFoundException", body));
    let answer = invoke(&functions, "f", None, "{").await;
    assert_eq!(answer.error().1, "InvalidRequestContentException");
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = invoke(&functions, "f", Some("Later"), "{}").await;
    assert_eq!((answer.error().0, answer.error().1), (400, "InvalidParameterValueException"));
    for (kind, limit) in [("RequestResponse", 6_291_456), ("Event", 1_048_576)] {
        let answer = invoke(&functions, "f", Some(kind), vec![b'1'; limit + 1]).await;
        let message = format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
        let body = json!({ "Type": "User", "message": message });
        assert_eq!(answer.error(), (413, "RequestTooLargeException", body));
    }
    let throttled = faults.add(Fault::throttle(Call::invoke("f")));
    let answer = invoke(&functions, "f", None, "{}").await;
    let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    let body = json!({ "Reason": reason, "Type": "User", "message": "Rate Exceeded." });
    assert_eq!(answer.error(), (429, "TooManyRequestsException", body));
    drop(throttled);
    let _failing = faults.add(Fault::fail_after_apply(Call::invoke("f")));
    let answer = invoke(&functions, "f", None, "{}").await;
    assert_eq!((answer.error().0, answer.error().1), (500, "ServiceException"));
}

#[tokio::test(start_paused = true)]
async fn get_function_returns_the_arn_timeout_and_reserved_concurrency() {
    let functions = stage(&Faults::default());
    let get = |path: &str| send(&functions, Request::get(path).body(Body::empty()).unwrap());
    let described = get("/2015-03-31/functions/f").await.json();
    assert_eq!(described["Configuration"]["FunctionArn"], ARN);
    assert_eq!(described["Configuration"]["Timeout"], 3);
    assert_eq!(described["Concurrency"]["ReservedConcurrentExecutions"], 5);
    assert_eq!(get("/2015-03-31/functions/g").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn function_that_invokes_itself_is_stopped_after_sixteen_rounds() {
    let faults = Faults::default();
    let functions = stage(&faults);
    let invoke = |trace: &str, kind: &str| {
        let request = Request::post("/2015-03-31/functions/f/invocations").header("x-amzn-trace-id", trace);
        let request = request.header("x-amz-invocation-type", kind);
        send(&functions, request.body(Body::from(r#"{"do":"describe"}"#)).unwrap())
    };
    let mut trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1".to_owned();
    for round in 1..=16 {
        let answer = invoke(&trace, "RequestResponse").await;
        assert_eq!(answer.status, StatusCode::OK, "{round}");
        answer.json()["trace"].as_str().unwrap().clone_into(&mut trace);
    }
    assert!(trace.starts_with("Root=1-5759e988-bd862e3fe1be46a994272793;"), "{trace}");
    let seen = faults.add(Fault::delay(Call::invoke("f"), Duration::ZERO));
    let answer = invoke(&trace, "RequestResponse").await;
    assert_eq!((answer.error().0, answer.error().1), (400, "RecursiveInvocationException"));
    assert_eq!(
        invoke(&trace, "Event").await.status,
        StatusCode::ACCEPTED,
        "Lambda accepts an asynchronous event of the loop, and drops the event later"
    );
    tokio::time::sleep(Duration::from_hours(7)).await;
    assert_eq!(seen.hits(), 0, "the seventeenth invocation does not run");
}
