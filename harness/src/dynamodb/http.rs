//! DynamoDB over HTTP, for any AWS SDK and the AWS CLI.

use std::future;
use std::io::{self, Read};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Crc;
use flate2::read::MultiGzDecoder;
use futures_util::stream;

use super::error::ApiError;
use super::{DynamoDb, connector, faults};

/// The largest body that DynamoDB takes, before and after it is inflated.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

impl DynamoDb {
    /// DynamoDB's HTTP endpoint: `POST /` takes calls, `GET /` tells that it is healthy.
    pub fn router(&self) -> Router {
        Router::new().route("/", get(health).post(post)).with_state(self.clone())
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

async fn post(State(db): State<DynamoDb>, headers: HeaderMap, body: Body) -> Response {
    let answer = match read(&headers, body).await {
        Ok(body) => {
            let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
            match answer(&db, target.unwrap_or_default().to_owned(), body).await {
                Some(answer) => answer,
                None => return without_an_answer(),
            }
        }
        Err(error) => error.into_response(),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_headers(&db, status, connector::CONTENT_TYPE, answer.body)
}

/// Answers off the threads that serve: a call may wait for another that holds the database.
async fn answer(db: &DynamoDb, target: String, body: Bytes) -> Option<super::Response> {
    let effects = faults::effects(db, None, &target, &body);
    let (db, delay) = (db.clone(), effects.delay);
    let work = move || faults::call_with(&db, None, &effects, &target, &body);
    let answered = if delay.is_zero() {
        tokio::task::spawn_blocking(work).await
    } else {
        // Whoever calls may hang up; the call takes effect all the same.
        let delayed = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            tokio::task::spawn_blocking(work).await
        });
        delayed.await.and_then(|answered| answered)
    };
    let failed = || ApiError::internal("The request processing has failed").into_response();
    answered.unwrap_or_else(|_| Some(failed()))
}

/// A body that fails before its first byte: the connection is closed before anything of the answer is written.
pub(crate) fn without_an_answer() -> Response {
    let lost = io::Error::new(io::ErrorKind::ConnectionAborted, "the answer is lost, as a fault has it");
    Body::from_stream(stream::once(future::ready(Err::<Bytes, _>(lost)))).into_response()
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let body =
        to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::request_too_large(MAX_BODY_BYTES))?;
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(body),
        // As DynamoDB takes it; which clients compress, and from what size on, is their own setting.
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
