//! Messages of the Runtime API: request bodies, and the responses with their statuses.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use crate::lambda::invoke::InvokeError;

/// Maximum size of a function's reply in bytes: 6 MiB and 100 bytes.
pub(in crate::lambda) const MAX_REPLY_BYTES: usize = 6_291_556;

/// Returns the error of an invocation whose reply exceeds [`MAX_REPLY_BYTES`].
pub(in crate::lambda) fn response_too_large() -> InvokeError {
    let message =
        format!("Response payload size exceeded maximum allowed payload size ({MAX_REPLY_BYTES} bytes).");
    InvokeError::Function { error_type: "Function.ResponseSizeTooLarge".to_owned(), message }
}

/// Reads a body to its end. Returns `None` if the body exceeds `limit` bytes.
///
/// A body that is too large is also read to its end. Otherwise, a runtime that is still sending would get a
/// connection error instead of the answer.
pub(in crate::lambda) async fn read_to_end(body: Body, limit: usize) -> Result<Option<Bytes>, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut length) = (BytesMut::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::Truncated)?;
        length = length.saturating_add(chunk.len());
        if length <= limit {
            kept.extend_from_slice(&chunk);
        }
    }
    Ok((length <= limit).then(|| kept.freeze()))
}

/// Returns the error that a runtime reported. The error type comes from the body, or otherwise from the header.
pub(super) fn reported_error(headers: &HeaderMap, body: &[u8]) -> InvokeError {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reported {
        error_type: Option<String>,
        error_message: Option<String>,
    }
    let reported: Reported = serde_json::from_slice(body).unwrap_or_default();
    let header = || headers.get("lambda-runtime-function-error-type")?.to_str().ok().map(str::to_owned);
    InvokeError::Function {
        error_type: reported.error_type.or_else(header).unwrap_or_else(|| "Runtime.Unknown".to_owned()),
        message: reported.error_message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()),
    }
}

/// Response 202, with which Lambda accepts every reply and error report of a runtime.
pub(super) struct Accepted;

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], r#"{"status":"OK"}"#)
            .into_response()
    }
}

/// Error response of the Runtime API, with which Lambda rejects a runtime's message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::lambda) enum Refusal {
    InvalidRequestId,
    InvalidStateTransition,
    RequestEntityTooLarge,
    /// The connection closed before the end of the body, so no runtime receives this response.
    Truncated,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error_type, message) = match self {
            Self::InvalidRequestId => {
                (StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID".to_owned())
            }
            Self::InvalidStateTransition => (
                StatusCode::FORBIDDEN,
                "InvalidStateTransition",
                "State transition is not allowed".to_owned(),
            ),
            Self::RequestEntityTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                format!("Exceeded maximum allowed payload size ({MAX_REPLY_BYTES} bytes)."),
            ),
            Self::Truncated => (StatusCode::BAD_REQUEST, "TruncatedBody", "The body ended early".to_owned()),
        };
        let body = json!({ "errorMessage": message, "errorType": error_type }).to_string();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_error_type_comes_from_the_body_or_otherwise_from_the_header() {
        let mut headers = HeaderMap::new();
        let body = br#"{"errorType":"T","errorMessage":"M","stackTrace":[]}"#;
        assert_eq!(reported_error(&headers, body), function_error("T", "M"));
        assert_eq!(
            reported_error(&headers, b"plain words"),
            function_error("Runtime.Unknown", "plain words")
        );
        headers.insert("lambda-runtime-function-error-type", "Function.Odd".parse().unwrap());
        assert_eq!(reported_error(&headers, b"{}"), function_error("Function.Odd", "{}"));
    }

    fn function_error(error_type: &str, message: &str) -> InvokeError {
        InvokeError::Function { error_type: error_type.to_owned(), message: message.to_owned() }
    }

    #[tokio::test]
    async fn request_body_up_to_the_limit_is_returned_and_a_larger_body_is_discarded() {
        let read = |length: usize| read_to_end(Body::from(vec![0; length]), MAX_REPLY_BYTES);
        assert_eq!(read(MAX_REPLY_BYTES).await.unwrap().unwrap().len(), MAX_REPLY_BYTES);
        assert_eq!(read(MAX_REPLY_BYTES + 1).await, Ok(None));
        let broken = Body::from_stream(futures_util::stream::iter([
            Ok(Bytes::from_static(b"{")),
            Err(std::io::Error::other("gone")),
        ]));
        assert_eq!(read_to_end(broken, MAX_REPLY_BYTES).await, Err(Refusal::Truncated));
        assert_eq!(Refusal::Truncated.into_response().status(), StatusCode::BAD_REQUEST);
    }
}
