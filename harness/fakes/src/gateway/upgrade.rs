//! `GET /{stage}`: upgrades a request to a WebSocket if the `$connect` route accepts the client.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::api::Api;
use super::authorizer::{self, Denial};
use super::config::CONNECT;
use super::connections::Connection;
use super::event::{self, ConnectionInfo, DisconnectStatus};
use super::handshake::{self, NoUpgrade};
use super::headers::Headers;
use super::identity::Identity;
use super::ids::ConnectionId;
use super::integration::{Failure, notice};
use super::query::QueryParameters;
use super::reply::ProxyReply;
use super::socket;
use crate::aws_format::trace_root;
use crate::observe::Observation;

/// Runs `$connect` for a handshake, and answers with 101 or with the response that rejects the client.
pub(super) async fn upgrade(State(api): State<Arc<Api>>, mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    handshake(api, parts, async { upgraded.await.map(TokioIo::new) }).await
}

/// Answers a handshake like [`upgrade`]. After the 101 response, `upgraded` resolves to the connection's
/// stream.
pub(super) async fn handshake<U, S, E>(api: Arc<Api>, parts: Parts, upgraded: U) -> Response
where
    U: Future<Output = Result<S, E>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: fmt::Display + Send,
{
    let url = parts.uri.path_and_query().map_or(0, |part| part.as_str().len());
    if url > api.config.limits.url_bytes {
        return plain(StatusCode::URI_TOO_LONG, "Request-URI Too Long");
    }
    let accept = match handshake::accept_key(&parts.headers) {
        Ok(accept) => accept,
        Err(NoUpgrade::Plain) => {
            let headers = [(CONNECTION, "Upgrade"), (UPGRADE, "websocket")];
            return (headers, plain(StatusCode::UPGRADE_REQUIRED, "Upgrade Required")).into_response();
        }
        Err(NoUpgrade::Version) => {
            let headers = [(SEC_WEBSOCKET_VERSION, "13")];
            return (headers, plain(StatusCode::UPGRADE_REQUIRED, "Upgrade Required")).into_response();
        }
        Err(NoUpgrade::NoKey) => return plain(StatusCode::BAD_REQUEST, "Bad Request"),
    };
    let Some(active) = api.active.enter() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    let (answer, answered) = oneshot::channel();
    // Use a separate task, because this future is dropped when the client leaves. As on AWS, `$connect` must
    // still run to completion in that case, and each accepted connection must still get its `$disconnect`
    // event.
    tokio::spawn(async move {
        open(api, parts, accept, upgraded, answer).await;
        drop(active);
    });
    answered.await.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"))
}

/// Runs a connection from its `$connect` to its `$disconnect`.
async fn open<U, S, E>(
    api: Arc<Api>,
    parts: Parts,
    accept: HeaderValue,
    upgraded: U,
    answer: oneshot::Sender<Response>,
) where
    U: Future<Output = Result<S, E>>,
    S: AsyncRead + AsyncWrite + Unpin + Send,
    E: fmt::Display,
{
    let mut info = ConnectionInfo {
        connection_id: ConnectionId::random(&*api.entropy),
        connected_at: api.clock.now(),
        identity: Identity::of(&parts),
        custom_domain: handshake::custom_domain(&parts, &api.config.custom_domains),
        authorizer: None,
    };
    // Sending the answer fails if the client has left. In that case, `upgraded` fails below.
    let protocol = match api.admit(&mut info, &parts).await {
        Ok(protocol) => protocol,
        Err(refusal) => return drop(answer.send(refusal)),
    };
    // Register the connection before the client receives the 101 response, so that management calls right
    // after the response find the connection.
    let (connection, frames) = Connection::new(info, api.config.limits.frames_waiting);
    api.connections.insert(Arc::clone(&connection));
    api.faults().notify(|| Observation::Opened { connection: connection.id().to_string() });
    drop(answer.send(switching_protocols(accept, protocol)));
    match upgraded.await {
        Ok(stream) => socket::run(api, connection, frames, stream).await,
        Err(error) => {
            tracing::debug!(connection = %connection.id(), %error, "client left during the handshake; connection removed");
            api.connections.remove(connection.id());
            let status = DisconnectStatus::new(1006, &*api.config.unconfirmed.abnormal_close_reason);
            api.disconnected(&connection.info, &status).await;
        }
    }
}

impl Api {
    /// Decides whether to accept a handshake: checks the rate limits, then invokes the authorizer, if any,
    /// and the `$connect` function.
    ///
    /// Returns the subprotocol for the 101 response, if any.
    ///
    /// # Errors
    /// The HTTP response that rejects the client.
    async fn admit(&self, info: &mut ConnectionInfo, parts: &Parts) -> Result<Option<HeaderValue>, Response> {
        let stamp = self.stamp();
        let route = self.route(CONNECT);
        if !self.rates.connection(route) {
            tracing::debug!(connection = %info.connection_id, "handshake throttled; rejected with 429");
            let body = notice("Too Many Requests", &info.connection_id, &stamp.request_id);
            return Err(json(StatusCode::TOO_MANY_REQUESTS, body.as_str().to_owned()));
        }
        let Some(route) = route else { return Ok(self.default_subprotocol(parts)) };
        let trace_id = trace_root(&*self.entropy, stamp.at);
        let query = QueryParameters::decode(parts.uri.query());
        let mut authorized = None;
        if let Some(authorizer) = &route.authorizer {
            let asked = Instant::now();
            let headers = Headers::of_handshake(&parts.headers, &info.identity, trace_id.clone(), true);
            let outcome = if authorizer.is_identified(&parts.headers, query.as_ref()) {
                let arn = event::method_arn(&self.config);
                let event = event::authorize(&self.config, info, &stamp, &headers, query.as_ref(), &arn);
                self.authorize(authorizer, event, &arn).await
            } else {
                Err(Denial::Unauthorized)
            };
            let context = outcome.map_err(|denial| {
                tracing::warn!(
                    connection = %info.connection_id,
                    error = %denial,
                    "authorizer rejected the handshake"
                );
                let body = notice(denial.notice(), &info.connection_id, &stamp.request_id);
                json(status_code(denial.status()), body.as_str().to_owned())
            })?;
            authorized = Some(authorizer::with_latency(&context, asked.elapsed()));
            info.authorizer = Some(context);
        }
        let headers = Headers::of_handshake(&parts.headers, &info.identity, trace_id, false);
        let event = event::connect(&self.config, info, &stamp, &headers, query.as_ref(), authorized.as_ref());
        let outcome = self.call(route, event).await.and_then(|reply| {
            if !self.config.unconfirmed.connect_without_status {
                reply.explicit_status().map_err(Failure::Malformed)?;
            }
            Ok(reply)
        });
        match outcome {
            Ok(reply) if reply.is_success() => {
                let protocol = reply.headers.get(SEC_WEBSOCKET_PROTOCOL).cloned();
                Ok(protocol.or_else(|| self.default_subprotocol(parts)))
            }
            Ok(reply) => Err(self.refusal(reply)),
            Err(failure) => {
                tracing::warn!(
                    connection = %info.connection_id,
                    error = %failure,
                    "$connect function failed; handshake rejected"
                );
                let status = match failure {
                    Failure::TimedOut => self.config.unconfirmed.connect_timeout_status,
                    Failure::Function(_)
                    | Failure::Panicked(_)
                    | Failure::Malformed(_)
                    | Failure::Status(_)
                    | Failure::TooLarge(_)
                    | Failure::NotText => 502,
                };
                let body = notice(failure.notice(), &info.connection_id, &stamp.request_id);
                Err(json(status_code(status), body.as_str().to_owned()))
            }
        }
    }

    /// Returns the subprotocol for the 101 response if the reply of `$connect` names no subprotocol.
    fn default_subprotocol(&self, parts: &Parts) -> Option<HeaderValue> {
        if !self.config.unconfirmed.accept_first_subprotocol {
            return None;
        }
        let offered = parts.headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
        HeaderValue::try_from(offered.split(',').next()?.trim()).ok()
    }

    /// Builds the response that rejects a client after the `$connect` function replied with a status other
    /// than 2xx.
    fn refusal(&self, reply: ProxyReply) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status_code(reply.status());
        if self.config.unconfirmed.connect_refusal_body {
            *response.headers_mut() = end_to_end(reply.headers);
            response
                .headers_mut()
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
            *response.body_mut() = reply.body.unwrap_or_default().into();
        }
        response
    }
}

/// Removes the headers that a function may not set, because they frame the HTTP message or belong to the
/// upgrade.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers
}

fn switching_protocols(accept: HeaderValue, protocol: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}

fn plain(status: StatusCode, message: &str) -> Response {
    json(status, format!(r#"{{"message":"{message}"}}"#))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Builds the 403 response for a path that does not name the API's stage.
pub(super) fn forbidden() -> Response {
    plain(StatusCode::FORBIDDEN, "Forbidden")
}
