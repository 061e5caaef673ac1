//! Management API at `/{stage}/@connections/{connection_id}`, through which functions send frames to clients.

use std::future::pending;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::Response;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::api::Api;
use super::connections::Connection;
use super::identity::Identity;
use super::ids::{ConnectionId, RequestId};
use crate::aws_format::{iso_8601, uuid};
use crate::faults::{CallContext, Caller, Effect, Service};
use crate::observe::{Answer, Observation};

/// `PostToConnection`: sends the request body to the client as one text frame.
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Response {
    let sent = api.post_or_fail(&id, caller.as_deref(), body).await;
    api.respond(sent.map(|()| (StatusCode::OK, Bytes::new())))
}

/// `GetConnection`: returns the client's identity, the time of the connect, and the time of the last
/// activity.
pub(super) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let found = api.connection_id(&id).and_then(|id| api.connections.find(&id).ok_or(Refusal::GONE));
    api.respond(found.map(|connection| (StatusCode::OK, describe(&connection))))
}

/// `DeleteConnection`: closes the socket, which triggers `$disconnect`.
pub(super) async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    // Remove the connection first: the next call then gets 410 immediately, even if the client is slow to
    // close.
    let taken = api.connection_id(&id).and_then(|id| api.connections.remove(&id).ok_or(Refusal::GONE));
    let deleted = taken.map(|connection| {
        connection.deleted.notify_one();
        (StatusCode::NO_CONTENT, Bytes::new())
    });
    api.respond(deleted)
}

/// Answers any call with 403, because the path names a stage that does not exist.
pub(super) async fn forbidden(State(api): State<Arc<Api>>) -> Response {
    api.respond(Err(Refusal::forbidden()))
}

impl Api {
    /// Sends a frame to a connection, unless a fault makes the call fail.
    async fn post_or_fail(&self, id: &str, caller: Option<&Caller>, body: Body) -> Result<(), Refusal> {
        let context = CallContext {
            service: Service::Connections,
            operation: "PostToConnection",
            resources: &[id],
            index: None,
            caller: caller.map(Caller::function),
        };
        let effects = self.faults().inject(&context, |effect| match effect {
            Effect::Conflict
            | Effect::Stale(_)
            | Effect::Duplicate
            | Effect::KillMidway { .. }
            | Effect::Freeze { .. }
            | Effect::Hang { .. }
            | Effect::Skew(_) => false,
            // Without a caller, the environment that made the call is unknown and cannot be killed.
            Effect::Kill => caller.is_some(),
            Effect::Throttle
            | Effect::Fail
            | Effect::FailAfterApply
            | Effect::LoseAnswer
            | Effect::Delay(_)
            | Effect::Gone
            | Effect::Deny => true,
        });
        if !effects.delay.is_zero() {
            sleep(effects.delay).await;
        }
        match effects.effect {
            Some(Effect::Throttle) => Err(Refusal::LIMIT_EXCEEDED),
            Some(Effect::Fail) => Err(Refusal::INTERNAL_SERVER_ERROR),
            Some(Effect::Gone) => Err(Refusal::GONE),
            Some(Effect::Deny) => Err(Refusal::ACCESS_DENIED),
            Some(Effect::FailAfterApply) => {
                self.post(id, caller, body).await?;
                Err(Refusal::INTERNAL_SERVER_ERROR)
            }
            Some(Effect::LoseAnswer) => {
                // The fault drops the answer: the caller sees neither success nor failure.
                drop(self.post(id, caller, body).await);
                pending().await
            }
            Some(Effect::Kill) => match caller {
                Some(caller) => {
                    caller.kill();
                    pending().await
                }
                None => self.post(id, caller, body).await,
            },
            // The delay has already passed. The filter in the call of `inject` excludes the remaining
            // effects.
            Some(
                Effect::Delay(_)
                | Effect::Conflict
                | Effect::Stale(_)
                | Effect::Duplicate
                | Effect::KillMidway { .. }
                | Effect::Freeze { .. }
                | Effect::Hang { .. }
                | Effect::Skew(_),
            )
            | None => self.post(id, caller, body).await,
        }
    }

    /// Takes a token from the API's rate limit for a call, and parses the call's connection id.
    fn connection_id(&self, id: &str) -> Result<ConnectionId, Refusal> {
        if self.rates.request(None) { well_formed(id) } else { Err(Refusal::LIMIT_EXCEEDED) }
    }

    async fn post(&self, id: &str, caller: Option<&Caller>, body: Body) -> Result<(), Refusal> {
        let id = self.connection_id(id)?;
        let frame = read(body, self.config.limits.message_bytes).await?;
        let posted = self.deliver(&id, frame.clone()).await;
        self.faults().notify(|| Observation::Posted {
            caller: caller.cloned(),
            connection: id.to_string(),
            frame: frame.as_str().to_owned(),
            answer: match &posted {
                Ok(()) => Answer::Done,
                Err(refusal) => Answer::Refused(refusal.status.as_u16().to_string()),
            },
        });
        posted
    }

    async fn deliver(&self, id: &ConnectionId, frame: Utf8Bytes) -> Result<(), Refusal> {
        let connection = self.connections.find(id).ok_or(Refusal::GONE)?;
        match timeout(self.config.limits.post_timeout, connection.send(frame)).await {
            Ok(sent) => sent.map_err(|_| Refusal::GONE),
            Err(_) => Err(Refusal::LIMIT_EXCEEDED),
        }
    }

    /// Builds a response with the headers that every response of the management API has.
    fn respond(&self, outcome: Result<(StatusCode, Bytes), Refusal>) -> Response {
        let (status, body, error_type) = match outcome {
            Ok((status, body)) => (status, body, None),
            Err(refusal) => (refusal.status, refusal.body(), Some(refusal.error_type)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, id) in [
            ("x-amzn-requestid", uuid(&*self.entropy)),
            ("x-amz-apigw-id", RequestId::random(&*self.entropy).to_string()),
        ] {
            headers.insert(name, HeaderValue::try_from(id).expect("ids are printable ASCII"));
        }
        if let Some(error_type) = error_type {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(error_type));
        }
        response
    }
}

fn well_formed(id: &str) -> Result<ConnectionId, Refusal> {
    ConnectionId::parse(id).ok_or_else(|| Refusal::bad_request(format!("Invalid connectionId: {id}")))
}

/// Reads the text of a frame from `body`, and fails with 413 if the body exceeds `limit` bytes.
async fn read(body: Body, limit: usize) -> Result<Utf8Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let mut data = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refusal::bad_request(format!("the body ended early: {error}")))?;
        if data.len() + chunk.len() > limit {
            return Err(Refusal::PAYLOAD_TOO_LARGE);
        }
        data.extend_from_slice(&chunk);
    }
    // A text frame can carry only UTF-8. AWS does not document its answer to a body that is not UTF-8.
    Utf8Bytes::try_from(data).map_err(|_| Refusal::bad_request("the body is not UTF-8".to_owned()))
}

fn describe(connection: &Connection) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Description<'a> {
        identity: DescribedIdentity<'a>,
        connected_at: String,
        last_active_at: String,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct DescribedIdentity<'a> {
        source_ip: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_agent: Option<&'a str>,
    }
    let Identity { user_agent, source_ip } = &connection.info.identity;
    let description = Description {
        identity: DescribedIdentity { source_ip, user_agent: user_agent.as_deref() },
        connected_at: iso_8601(connection.info.connected_at),
        last_active_at: iso_8601(connection.last_active()),
    };
    serde_json::to_vec(&description).expect("a description has string keys and string values").into()
}

/// Error response of the management API.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Refusal {
    status: StatusCode,
    error_type: &'static str,
    message: Option<String>,
}

impl Refusal {
    const GONE: Self = Self { status: StatusCode::GONE, error_type: "GoneException", message: None };
    const LIMIT_EXCEEDED: Self =
        Self { status: StatusCode::TOO_MANY_REQUESTS, error_type: "LimitExceededException", message: None };
    const ACCESS_DENIED: Self =
        Self { status: StatusCode::FORBIDDEN, error_type: "AccessDeniedException", message: None };
    const INTERNAL_SERVER_ERROR: Self = Self {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error_type: "InternalServerErrorException",
        message: None,
    };
    const PAYLOAD_TOO_LARGE: Self =
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, error_type: "PayloadTooLargeException", message: None };

    fn forbidden() -> Self {
        let message = Some("Forbidden".to_owned());
        Self { status: StatusCode::FORBIDDEN, error_type: "ForbiddenException", message }
    }

    fn bad_request(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error_type: "BadRequestException", message: Some(message) }
    }

    fn body(&self) -> Bytes {
        let Some(message) = &self.message else { return Bytes::new() };
        format!(r#"{{"message":{}}}"#, serde_json::Value::from(message.as_str())).into()
    }
}
