//! Sending frames to clients, over the gateway's management API: to one, or to [all](Broadcast) of a user or a tenant.

mod broadcast;

use std::error::Error;
use std::fmt;
use std::future::Future;

use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_apigatewaymanagement::primitives::Blob;

pub use broadcast::{Broadcast, BroadcastSettings, FrameTooLarge, NotTried, Outcome, Tally, Target};

use crate::ids::ConnectionId;

/// The way to the clients.
pub trait Connections: Send + Sync {
    /// Sends one frame to one client.
    ///
    /// # Errors
    /// When it did not arrive: the error's kind says whether it still may.
    fn send(&self, to: &ConnectionId, frame: &str) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// A frame that did not arrive.
#[derive(Debug)]
pub struct SendError {
    kind: SendErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a [`SendError`] means for the sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The connection is closed for good: forget it.
    Gone,
    /// The gateway is throttling, or does not let us: it may arrive later.
    Unavailable,
    /// The gateway did not answer, or failed: it may have arrived, and would come twice.
    Unanswered,
    /// The gateway will never take this frame for this connection.
    Refused,
}

impl SendError {
    /// An error without a source.
    #[must_use]
    pub const fn new(kind: SendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> SendErrorKind {
        self.kind
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SendErrorKind::Gone => "the connection is closed",
            SendErrorKind::Unavailable => "the gateway did not take the frame",
            SendErrorKind::Unanswered => "whether the gateway took the frame is not known",
            SendErrorKind::Refused => "the gateway refuses the frame",
        })
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The clients of an API Gateway WebSocket API.
#[derive(Clone, Debug)]
pub struct ApiGatewayConnections {
    client: Client,
}

impl ApiGatewayConnections {
    /// The clients that `client`'s endpoint serves.
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

/// Codes come from the `x-amzn-errortype` header, since a 410 has an empty body.
fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> SendErrorKind {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match (error.code(), status) {
        (Some("GoneException"), _) | (_, 410) => SendErrorKind::Gone,
        (_, 400 | 413) => SendErrorKind::Refused,
        // A permission that is missing is given later: the frame is as good then.
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
    async fn a_frame_is_posted_as_it_is() {
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
    async fn an_answer_says_whether_the_frame_may_still_arrive() {
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
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.source().is_some());
        }
    }
}
