//! What goes over the wire of the Runtime API: bodies in, statuses out.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use crate::lambda::invoke::InvokeError;

/// The most that a reply may hold: 6 MiB and 100 bytes.
pub(in crate::lambda) const MAX_REPLY_BYTES: usize = 6_291_556;

/// What becomes of an invocation whose reply holds more.
pub(in crate::lambda) fn response_too_large() -> InvokeError {
    let message =
        format!("Response payload size exceeded maximum allowed payload size ({MAX_REPLY_BYTES} bytes).");
    InvokeError::Function { error_type: "Function.ResponseSizeTooLarge".to_owned(), message }
}

/// The whole body, or nothing if it is too large. It is read to its end all the same: a runtime that is
/// still sending would else find its connection broken before it sees the answer.
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

/// The error as the runtime words it, in its body or else in its header.
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

/// 202, as Lambda answers whatever it takes.
pub(super) struct Accepted;

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], r#"{"status":"OK"}"#)
            .into_response()
    }
}

/// Why Lambda does not take what a runtime sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::lambda) enum Refusal {
    InvalidRequestId,
    InvalidStateTransition,
    RequestEntityTooLarge,
    /// The connection broke within the body: nobody reads this answer.
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
    fn an_error_is_worded_by_the_body_or_else_by_the_header() {
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
    async fn a_body_is_kept_up_to_the_limit_and_not_beyond() {
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
