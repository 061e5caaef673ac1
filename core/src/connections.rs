//! Sends frames to clients through API Gateway's management API.
//!
//! [`Connections`] sends to one connection. [`Broadcast`] sends to all connections of a user or a tenant.

mod broadcast;

use std::error::Error;
use std::fmt;
use std::future::Future;

use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_apigatewaymanagement::primitives::Blob;

pub use broadcast::{Broadcast, BroadcastError, BroadcastSettings, FrameTooLarge, Outcome, Tally, Target};

use crate::ids::ConnectionId;

/// Sends frames to connected clients.
pub trait Connections: Send + Sync {
    /// Sends one frame, a JSON text, to one connection.
    ///
    /// # Errors
    /// [`SendError`] if the gateway did not accept the frame, or did not answer. The error's
    /// [kind](SendError::kind) says whether to send the frame again.
    fn send(&self, to: &ConnectionId, frame: &str) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// An error from sending a frame to a connection.
#[derive(Debug)]
pub struct SendError {
    kind: SendErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kind of a [`SendError`], which tells the sender whether to send the frame again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The connection no longer exists (410 Gone). Send no more frames to this connection.
    Gone,
    /// The gateway throttled the call (429) or denied permission (403). The frame did not arrive; send it again
    /// later.
    Unavailable,
    /// The gateway failed or did not answer. The frame may have arrived, so sending it again may deliver it
    /// twice.
    Unanswered,
    /// The gateway rejects this frame for this connection (400 or 413). Sending it again does not help.
    Refused,
}

impl SendError {
    /// Creates a send error of this kind, without a source error.
    #[must_use]
    pub const fn new(kind: SendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Returns the kind of the error, which says whether to send the frame again.
    #[must_use]
    pub const fn kind(&self) -> SendErrorKind {
        self.kind
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SendErrorKind::Gone => "the connection no longer exists",
            SendErrorKind::Unavailable => "the gateway throttled the call or denied permission",
            SendErrorKind::Unanswered => "the gateway did not confirm the frame",
            SendErrorKind::Refused => "the gateway rejected the frame",
        })
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Sends frames to the clients of an API Gateway WebSocket API.
#[derive(Clone, Debug)]
pub struct ApiGatewayConnections {
    client: Client,
}

impl ApiGatewayConnections {
    /// Creates a sender that uses `client`, whose endpoint belongs to one WebSocket API and stage.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Connections for ApiGatewayConnections {
    async fn send(&self, to: &ConnectionId, frame: &str) -> Result<(), SendError> {
        let sent =
            self.client.post_to_connection().connection_id(to.as_str()).data(Blob::new(frame)).send().await;
        sent.map(|_| ()).map_err(|error| SendError { kind: kind_of(&error), source: Some(error.into()) })
    }
}

/// Returns the kind of a gateway error.
///
/// The SDK reads the error code from the `x-amzn-errortype` header, because a 410 response has an empty body.
fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> SendErrorKind {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match (error.code(), status) {
        (Some("GoneException"), _) | (_, 410) => SendErrorKind::Gone,
        (_, 400 | 413) => SendErrorKind::Refused,
        // 403 means that a permission is missing. The frame can be sent once the permission is granted.
        (_, 403 | 429) => SendErrorKind::Unavailable,
        _ => SendErrorKind::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_apigatewaymanagement::operation::post_to_connection::PostToConnectionOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn http(status: u16, errortype: &'static str, body: &'static str) -> HttpResponse {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), body.into());
        response.headers_mut().insert("x-amzn-errortype", errortype);
        response
    }

    #[tokio::test]
    async fn frame_is_posted_unchanged_to_the_target_connection() {
        let rule = mock!(Client::post_to_connection)
            .match_requests(|request| {
                request.connection_id() == Some("c1") && request.data().is_some_and(|d| d.as_ref() == b"{}")
            })
            .then_output(|| PostToConnectionOutput::builder().build());
        let connections = ApiGatewayConnections::new(mock_client!(aws_sdk_apigatewaymanagement, [&rule]));
        connections.send(&"c1".into(), "{}").await.unwrap();
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_gateway_error_status_maps_to_a_send_error_kind() {
        let answers = [
            (410, "GoneException", "", SendErrorKind::Gone),
            (429, "LimitExceededException", r#"{"message":"slow"}"#, SendErrorKind::Unavailable),
            (500, "InternalServerErrorException", "{}", SendErrorKind::Unanswered),
            (413, "PayloadTooLargeException", r#"{"message":"large"}"#, SendErrorKind::Refused),
            (400, "BadRequestException", r#"{"message":"Invalid connectionId: c1"}"#, SendErrorKind::Refused),
            (403, "ForbiddenException", r#"{"message":"no"}"#, SendErrorKind::Unavailable),
        ];
        for (status, errortype, body, kind) in answers {
            let rule = mock!(Client::post_to_connection)
                .sequence()
                .http_response(move || http(status, errortype, body))
                .repeatedly()
                .build();
            let client = mock_client!(aws_sdk_apigatewaymanagement, RuleMode::Sequential, [&rule]);
            let error = ApiGatewayConnections::new(client).send(&"c1".into(), "{}").await.unwrap_err();
            assert_eq!(error.kind(), kind, "HTTP status {status} maps to {kind:?}");
            assert!(error.source().is_some(), "the SDK error is kept as the source");
        }
    }
}
