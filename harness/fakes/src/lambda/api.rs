//! The part of Lambda's HTTP API that an SDK needs to invoke functions.

use std::future::pending;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::asynchronous;
use super::config::{Code, FunctionConfig};
use super::functions::{Functions, MAX_PAYLOAD_BYTES};
use super::identifiers::function_name;
use super::invoke::{EXECUTED_VERSION, InvokeError, error_payload};
use super::runtime_api::read_to_end;

use crate::aws_format::uuid;
use crate::faults::{CallContext, Caller, Effect, Service};
use crate::sdk;

impl Functions {
    /// Returns a router with the operations `Invoke` and `GetFunction` of Lambda's HTTP API (version
    /// 2015-03-31).
    ///
    /// The router does not check signatures. `LogType: Tail` returns no log, because the fake does not
    /// separate the output of a process by invocation.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/2015-03-31/functions/{name}", get(get_function))
            .with_state(self.clone())
    }

    /// Returns an HTTP client that sends calls of Lambda's API to these functions.
    ///
    /// Both AWS SDKs and code that signs requests without an SDK can use the client.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        sdk::client(self.router(), None)
    }

    /// Returns an HTTP client like [`http_client`](Self::http_client) that makes every call with the identity
    /// `caller`.
    ///
    /// Fault rules can then match only the calls of `caller`, and can kill the environment of `caller`.
    #[must_use]
    pub fn http_client_for(&self, caller: Caller) -> SharedHttpClient {
        sdk::client(self.router(), Some(caller))
    }
}

async fn invoke(
    State(functions): State<Functions>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Response {
    let request_id = uuid(&*functions.options().entropy);
    let (query, caller) = (query.as_deref(), caller.as_deref());
    let answer = answer_or_fail(&functions, &name, query, &headers, caller, body, &request_id).await;
    answer.unwrap_or_else(|refusal| refusal.answer(&request_id))
}

/// Answers a call of `Invoke`, unless a fault makes the call fail.
async fn answer_or_fail(
    functions: &Functions,
    name: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    caller: Option<&Caller>,
    body: Body,
    request_id: &str,
) -> Result<Response, Refusal> {
    let config = find_function(functions, name, query)?;
    let context = CallContext {
        service: Service::Lambda,
        operation: CallContext::INVOKE_API,
        resources: &[&config.name],
        index: None,
        caller: caller.map(Caller::function),
    };
    let effects = functions.options().faults.inject(&context, |effect| effect.applies_to_any_call(caller));
    if !effects.delay.is_zero() {
        sleep(effects.delay).await;
    }
    if effects.effect == Some(Effect::Throttle) {
        return Err(Refusal::invoke(&InvokeError::Throttled, config));
    }
    if effects.effect == Some(Effect::Fail) {
        return Err(Refusal::invoke(&InvokeError::Service, config));
    }
    if let (Some(Effect::Kill), Some(caller)) = (effects.effect, caller) {
        caller.kill();
        return pending().await;
    }
    let answer = answer(functions, config, headers, body, request_id).await;
    if effects.effect == Some(Effect::LoseAnswer) {
        return pending().await;
    }
    if effects.effect == Some(Effect::FailAfterApply) {
        answer?;
        return Err(Refusal::invoke(&InvokeError::Service, config));
    }
    answer
}

async fn answer(
    functions: &Functions,
    config: &FunctionConfig,
    headers: &HeaderMap,
    body: Body,
    request_id: &str,
) -> Result<Response, Refusal> {
    let kind =
        headers.get("x-amz-invocation-type").map_or(Some("RequestResponse"), |kind| kind.to_str().ok());
    let limit = if kind == Some("Event") { asynchronous::MAX_PAYLOAD_BYTES } else { MAX_PAYLOAD_BYTES };
    let payload = match read_to_end(body, limit).await {
        Ok(Some(payload)) if payload.is_empty() => Bytes::from_static(b"{}"),
        Ok(Some(payload)) => payload,
        Ok(None) => return Err(Refusal::invoke(&InvokeError::TooLarge(limit), config)),
        Err(_) => return Err(Refusal::content("the body ended early")),
    };
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&payload) {
        return Err(Refusal::content(&error.to_string()));
    }
    let caused_by = headers.get("x-amzn-trace-id").and_then(|header| header.to_str().ok());
    match kind {
        Some("RequestResponse") => {
            let inner = Arc::clone(&functions.0);
            let reply = inner.requested(&config.name, request_id.to_owned(), payload, caused_by).await;
            replied(reply, config, request_id)
        }
        Some("Event") => {
            let queued = functions.queue(&config.name, payload, caused_by);
            let request_id = queued.map_err(|error| Refusal::invoke(&error, config))?;
            Ok((StatusCode::ACCEPTED, [("x-amzn-requestid", request_id)]).into_response())
        }
        Some("DryRun") => Ok((StatusCode::NO_CONTENT, [("x-amzn-requestid", request_id)]).into_response()),
        _ => Err(Refusal {
            status: StatusCode::BAD_REQUEST,
            error_type: "InvalidParameterValueException",
            body: json!({
                "Type": "User",
                "message": "InvocationType must be one of Event, RequestResponse, DryRun",
            }),
        }),
    }
}

fn replied(
    reply: Result<Bytes, InvokeError>,
    config: &FunctionConfig,
    request_id: &str,
) -> Result<Response, Refusal> {
    let headers = [
        ("x-amzn-requestid", request_id),
        ("x-amz-executed-version", EXECUTED_VERSION),
        ("content-type", "application/json"),
    ];
    match reply {
        Ok(reply) => Ok((headers, reply).into_response()),
        Err(error @ InvokeError::Function { .. }) => {
            let body = error_payload(&error).to_string();
            Ok((headers, [("x-amz-function-error", "Unhandled")], body).into_response())
        }
        Err(error) => Err(Refusal::invoke(&error, config)),
    }
}

async fn get_function(
    State(functions): State<Functions>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let request_id = uuid(&*functions.options().entropy);
    let config = match find_function(&functions, &name, query.as_deref()) {
        Ok(config) => config,
        Err(refusal) => return refusal.answer(&request_id),
    };
    let mut body = json!({
        "Configuration": {
            "FunctionName": config.name,
            "FunctionArn": config.arn(),
            "Runtime": "provided.al2023",
            "Handler": config.handler,
            "Timeout": config.timeout.as_secs(),
            "MemorySize": config.memory_mib,
            "Version": EXECUTED_VERSION,
            "Environment": { "Variables": config.environment },
            "PackageType": "Zip",
            "State": "Active",
            "LastUpdateStatus": "Successful",
        },
        "Code": { "Location": match &config.code {
            Code::Program(program) => program.display().to_string(),
            Code::InProcess(_) => String::new(),
        } },
    });
    if let Some(reserved) = config.reserved_concurrency {
        body["Concurrency"] = json!({ "ReservedConcurrentExecutions": reserved });
    }
    let headers = [("x-amzn-requestid", &*request_id), ("content-type", "application/json")];
    (headers, body.to_string()).into_response()
}

/// Finds a function by its name, ARN or partial ARN. The only accepted qualifier is `$LATEST`.
fn find_function<'a>(
    functions: &'a Functions,
    name: &str,
    query: Option<&str>,
) -> Result<&'a FunctionConfig, Refusal> {
    let missing = |name: &str| Refusal {
        status: StatusCode::NOT_FOUND,
        error_type: "ResourceNotFoundException",
        body: json!({ "Type": "User", "Message": format!("Function not found: {name}") }),
    };
    let mut query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let qualifier = query.find(|(key, _)| key == "Qualifier").map(|(_, qualifier)| qualifier);
    if let Some(qualifier) = qualifier.filter(|version| version != EXECUTED_VERSION) {
        return Err(missing(&format!("{name}:{qualifier}")));
    }
    let function = function_name(name).and_then(|name| functions.0.function(name).ok());
    function.map(|function| &function.config).ok_or_else(|| missing(name))
}

/// Error response of Lambda's API, in the form that SDKs parse.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error_type: &'static str,
    body: Value,
}

impl Refusal {
    fn content(reason: &str) -> Self {
        let message = format!("Could not parse request body into json: {reason}");
        Self {
            status: StatusCode::BAD_REQUEST,
            error_type: "InvalidRequestContentException",
            body: json!({ "Type": "User", "message": message }),
        }
    }

    fn invoke(error: &InvokeError, config: &FunctionConfig) -> Self {
        let text = error.to_string();
        let message = text.split_once(": ").map_or(&*text, |(_, message)| message);
        match error {
            InvokeError::Throttled => {
                let reason = if config.reserved_concurrency.is_some() {
                    "ReservedFunctionConcurrentInvocationLimitExceeded"
                } else {
                    "ConcurrentInvocationLimitExceeded"
                };
                Self {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    error_type: "TooManyRequestsException",
                    body: json!({ "Reason": reason, "Type": "User", "message": message }),
                }
            }
            InvokeError::TooLarge(_) => Self {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                error_type: "RequestTooLargeException",
                body: json!({ "Type": "User", "message": message }),
            },
            InvokeError::Recursion => Self {
                status: StatusCode::BAD_REQUEST,
                error_type: "RecursiveInvocationException",
                body: json!({ "Type": "User", "Message": message }),
            },
            InvokeError::NotFound(_) => Self {
                status: StatusCode::NOT_FOUND,
                error_type: "ResourceNotFoundException",
                body: json!({ "Type": "User", "Message": message }),
            },
            InvokeError::Service | InvokeError::Function { .. } => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                error_type: "ServiceException",
                body: json!({ "Type": "Service", "Message": message }),
            },
        }
    }

    fn answer(self, request_id: &str) -> Response {
        let headers = [
            ("x-amzn-requestid", request_id),
            ("x-amzn-errortype", self.error_type),
            (header::CONTENT_TYPE.as_str(), "application/json"),
        ];
        (self.status, headers, self.body.to_string()).into_response()
    }
}
