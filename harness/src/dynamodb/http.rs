//! DynamoDB over HTTP, for any AWS SDK and the AWS CLI.

use std::io::Read;

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

use super::error::ApiError;
use super::{DynamoDb, connector};

/// The largest body that DynamoDB takes, before and after it is inflated.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

impl DynamoDb {
    /// DynamoDB's HTTP endpoint: `POST /` takes calls, `GET /` tells that it is healthy.
    pub fn router(&self) -> Router {
        Router::new().route("/", get(health).post(post)).with_state(self.clone())
    }
}

async fn health(State(db): State<DynamoDb>) -> Response {
    let region = db.lock().settings().region.clone();
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
            db.handle(target.unwrap_or_default(), &body)
        }
        Err(error) => error.into_response(),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_headers(&db, status, connector::CONTENT_TYPE, answer.body)
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let body =
        to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::request_too_large(MAX_BODY_BYTES))?;
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(body),
        // boto3 compresses every body above 10 KB.
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
