//! DynamoDB over HTTP, for any AWS SDK and the AWS CLI. SDK clients in this process use the same router, without
//! sockets.

use std::future::pending;
use std::io::Read;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing;
use axum::{Extension, Router};
use bytes::Bytes;
use flate2::Crc;
use flate2::read::MultiGzDecoder;

use super::database::DynamoDb;
use super::error::ApiError;
use super::{dispatch, faults, response};
use crate::faults::{Caller, Effect};
use crate::sdk::{InProcess, lost_answer};

/// Content type of requests and answers in DynamoDB's protocol.
const PROTOCOL: &str = "application/x-amz-json-1.0";

/// Largest request body that DynamoDB accepts, in bytes, both before and after decompression.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

impl DynamoDb {
    /// Returns DynamoDB's HTTP endpoint: `POST /` answers calls, and `GET /` answers health checks.
    pub fn router(&self) -> Router {
        Router::new().route("/", routing::get(health).post(post)).with_state(self.clone())
    }

    /// Returns an endpoint for the harness itself. No fault is injected into calls to this endpoint, and no ledger
    /// records the calls.
    pub(super) fn quiet_router(&self) -> Router {
        Router::new().route("/", routing::post(post_quietly)).with_state(self.clone())
    }
}

async fn health(State(db): State<DynamoDb>) -> Response {
    let region = &db.settings.region;
    with_headers(
        &db,
        StatusCode::OK,
        "text/plain",
        format!("healthy: dynamodb.{region}.amazonaws.com ").into(),
    )
}

async fn post(
    State(db): State<DynamoDb>,
    in_process: Option<Extension<InProcess>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = caller.map(|Extension(caller)| caller);
    let answer = match read(&headers, body).await {
        Ok(body) => match answer(&db, in_process.is_some(), caller, target(&headers), body).await {
            Some(answer) => answer,
            None => return lost_answer(),
        },
        Err(error) => error.into_response(),
    };
    respond(&db, answer)
}

async fn post_quietly(State(db): State<DynamoDb>, headers: HeaderMap, body: Body) -> Response {
    let answer = match read(&headers, body).await {
        Ok(body) => faults::respond(dispatch::call(&mut db.lock(), target(&headers), &body)),
        Err(error) => error.into_response(),
    };
    respond(&db, answer)
}

fn target(headers: &HeaderMap) -> &str {
    headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default()
}

/// Answers a call; `None` if a fault drops the answer.
async fn answer(
    db: &DynamoDb,
    in_process: bool,
    caller: Option<Caller>,
    target: &str,
    body: Bytes,
) -> Option<response::Response> {
    let effects = faults::effects(db, caller.as_ref(), target, &body);
    if in_process && effects.are_none() {
        return Some(faults::call(db, caller.as_ref(), target, &body));
    }
    let (effect, delay) = (effects.effect, effects.delay);
    if let (Some(Effect::Kill), Some(caller)) = (effect, &caller) {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        caller.kill();
        return pending().await;
    }
    let (db, target) = (db.clone(), target.to_owned());
    let work = move || faults::call_with(&db, caller.as_ref(), &effects, &target, &body);
    let answered = match (in_process, delay.is_zero()) {
        (true, true) => return work(),
        // Runs on a blocking thread, because the call may wait for another call that holds the database's lock.
        (false, true) => tokio::task::spawn_blocking(work).await,
        // Runs on a separate task, so that the call takes effect even if its caller hangs up or is killed.
        (true, false) => {
            let delayed = async move {
                tokio::time::sleep(delay).await;
                work()
            };
            tokio::spawn(delayed).await
        }
        (false, false) => {
            let delayed = async move {
                tokio::time::sleep(delay).await;
                tokio::task::spawn_blocking(work).await
            };
            tokio::spawn(delayed).await.and_then(|answered| answered)
        }
    };
    let failed = || ApiError::internal("The request processing has failed").into_response();
    answered.unwrap_or_else(|_| Some(failed()))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let body =
        to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::request_too_large(MAX_BODY_BYTES))?;
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(body),
        // DynamoDB accepts gzip. Each client decides for itself which bodies to compress.
        Some(b"gzip") => inflate(&body),
        Some(_) => Err(ApiError::serialization(Some("Content-Encoding must be gzip or identity"))),
    }
}

fn inflate(body: &[u8]) -> Result<Bytes, ApiError> {
    let mut inflated = Vec::new();
    MultiGzDecoder::new(body)
        .take(MAX_BODY_BYTES as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|error| ApiError::serialization(Some(&format!("The body is not gzip: {error}"))))?;
    if inflated.len() > MAX_BODY_BYTES {
        return Err(ApiError::request_too_large(MAX_BODY_BYTES));
    }
    Ok(inflated.into())
}

fn respond(db: &DynamoDb, answer: response::Response) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_headers(db, status, PROTOCOL, answer.body)
}

fn with_headers(db: &DynamoDb, status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut crc = Crc::new();
    crc.update(&body);
    let headers = [
        ("x-amzn-requestid", db.request_id()),
        ("x-amz-crc32", crc.sum().to_string()),
        (CONTENT_TYPE.as_str(), content_type.to_owned()),
    ];
    (status, headers, body).into_response()
}
