//! Invokes the functions of routes, and turns their replies into frames for clients.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::api::Api;
use super::authorizer::{self, Authorizer, Context, Denial};
use super::config::{CONNECT, DEFAULT, DISCONNECT, Route};
use super::connections::Connection;
use super::event::{self, ConnectionInfo, DisconnectStatus, RequestStamp};
use super::ids::{ConnectionId, RequestId};
use super::reply::{MalformedReply, ProxyReply};
use crate::faults::{self, Effect, Service};
use crate::lambda::InvokeError;

impl Api {
    /// Returns a stamp with a new request id and the current time.
    pub(super) fn stamp(&self) -> RequestStamp {
        RequestStamp { request_id: RequestId::random(&*self.entropy), at: self.clock.now() }
    }

    /// Returns the route with the key `key`; `None` if the API has no such route.
    pub(super) fn route(&self, key: &str) -> Option<&Route> {
        self.config.routes.iter().find(|route| route.key == key)
    }

    /// Handles one message of an open connection: selects a route, invokes the route's function, and sends
    /// the resulting frame, if any.
    pub(super) async fn message(self: Arc<Self>, connection: Arc<Connection>, body: Utf8Bytes) {
        let stamp = self.stamp();
        let route = self.select_route(&body);
        let frame = match route {
            _ if !self.rates.request(route) => {
                tracing::debug!(connection = %connection.id(), "message throttled; function not invoked");
                let sends_frame = self.config.unconfirmed.throttled_message_frame;
                sends_frame.then(|| notice("Too Many Requests", connection.id(), &stamp.request_id))
            }
            None => Some(notice("Forbidden", connection.id(), &stamp.request_id)),
            Some(route) => {
                let id = RequestId::random(&*self.entropy);
                let event = event::message(&self.config, &connection.info, &stamp, &id, &route.key, &body);
                let outcome = self.call(route, event).await;
                let frame = self.answer(route, outcome);
                frame.unwrap_or_else(|failure| {
                    tracing::warn!(
                        connection = %connection.id(),
                        route = route.key,
                        error = %failure,
                        "message failed; client receives an error frame"
                    );
                    Some(notice(failure.notice(), connection.id(), &stamp.request_id))
                })
            }
        };
        if let Some(frame) = frame
            && connection.send(frame).await.is_err()
        {
            tracing::debug!(connection = %connection.id(), "connection closed; reply dropped");
        }
    }

    /// Returns the route that a message with this `body` selects, or `$default` if no other route matches.
    ///
    /// A message never selects `$connect` or `$disconnect`, even if its body names one of them.
    fn select_route(&self, body: &str) -> Option<&Route> {
        let key = self.selection.evaluate(body);
        key.filter(|key| key != CONNECT && key != DISCONNECT)
            .and_then(|key| self.route(&key))
            .or_else(|| self.route(DEFAULT))
    }

    /// Converts a function's reply to a message into the frame for the client; `Ok(None)` if the client
    /// receives no frame.
    fn answer(
        &self,
        route: &Route,
        outcome: Result<ProxyReply, Failure>,
    ) -> Result<Option<Utf8Bytes>, Failure> {
        let reply = outcome?;
        if !route.route_response {
            if !reply.is_success() && self.config.unconfirmed.non_2xx_reply_frame {
                return Err(Failure::Status(reply.status()));
            }
            return Ok(None);
        }
        match reply.body {
            Some(body) if body.len() > self.config.limits.message_bytes => Err(Failure::TooLarge(body.len())),
            Some(body) if !body.is_empty() => {
                Utf8Bytes::try_from(body).map(Some).map_err(|_| Failure::NotText)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Invokes the function of `$disconnect`, if the API has that route. The function's reply has no effect.
    pub(super) async fn disconnected(&self, info: &ConnectionInfo, status: &DisconnectStatus) {
        let Some(route) = self.route(DISCONNECT) else { return };
        let context = faults::CallContext {
            service: Service::Connections,
            operation: DISCONNECT,
            resources: &[&info.connection_id.to_string()],
            index: None,
            caller: None,
        };
        let possible = |effect| matches!(effect, Effect::Fail | Effect::Delay(_));
        let effects = self.faults().inject(&context, possible);
        if !effects.delay.is_zero() {
            sleep(effects.delay).await;
        }
        if effects.effect == Some(Effect::Fail) {
            return;
        }
        let event = event::disconnect(&self.config, info, &self.stamp(), status);
        if let Err(failure) = self.call(route, event).await {
            tracing::warn!(connection = %info.connection_id, error = %failure, "$disconnect function failed");
        }
    }

    /// Invokes the function of `route` and parses the function's reply.
    pub(super) async fn call(&self, route: &Route, event: Bytes) -> Result<ProxyReply, Failure> {
        let payload = self.invoke(&route.function, route.integration_timeout, event).await?;
        ProxyReply::parse(&payload).map_err(Failure::Malformed)
    }

    /// Invokes a function. On a timeout, or if this future is dropped, the function continues to run.
    async fn invoke(&self, function: &str, within: Duration, event: Bytes) -> Result<Bytes, Failure> {
        let invoke = Arc::clone(&self.invoke);
        let function = function.to_owned();
        let invocation = tokio::spawn(async move { invoke.invoke(&function, event).await });
        match timeout(within, invocation).await {
            Err(_) => Err(Failure::TimedOut),
            Ok(Err(panic)) => Err(Failure::Panicked(panic.to_string())),
            Ok(Ok(Err(error))) => Err(Failure::Function(error)),
            Ok(Ok(Ok(payload))) => Ok(payload),
        }
    }

    /// Asks `authorizer` whether the handshake in `event` may invoke the `$connect` route, whose ARN is `arn`.
    pub(super) async fn authorize(
        &self,
        authorizer: &Authorizer,
        event: Bytes,
        arn: &str,
    ) -> Result<Context, Denial> {
        // AWS publishes no timeout for authorizers, so the fake uses the maximum integration timeout.
        match self.invoke(&authorizer.function, Duration::from_secs(29), event).await {
            Ok(payload) => authorizer::decide(&payload, arn),
            Err(Failure::Function(error)) => Err(authorizer::denial_of(&error)),
            Err(failure) => Err(Denial::Failed(failure.to_string())),
        }
    }
}

/// Builds a message that API Gateway itself sends to a client, such as an error frame. The spaces in the JSON
/// text are the same as AWS's.
pub(super) fn notice(text: &str, connection: &ConnectionId, request: &RequestId) -> Utf8Bytes {
    format!(r#"{{"message": "{text}", "connectionId":"{connection}", "requestId":"{request}"}}"#).into()
}

/// Reason why an invocation of a route's function did not return a usable reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    TimedOut,
    Function(InvokeError),
    Panicked(String),
    Malformed(MalformedReply),
    Status(u16),
    TooLarge(usize),
    NotText,
}

impl Failure {
    /// Returns the message in the error frame that the client receives.
    pub(super) fn notice(&self) -> &'static str {
        match self {
            Self::TimedOut => "Endpoint request timed out",
            Self::Function(_)
            | Self::Panicked(_)
            | Self::Malformed(_)
            | Self::Status(_)
            | Self::TooLarge(_)
            | Self::NotText => "Internal server error",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the function did not reply within the integration timeout"),
            Self::Function(error) => write!(f, "{error}"),
            Self::Panicked(error) => write!(f, "the invocation task did not finish: {error}"),
            Self::Malformed(error) => write!(f, "{error}"),
            Self::Status(status) => write!(f, "the function replied with status {status}"),
            Self::TooLarge(bytes) => {
                write!(f, "the reply body of {bytes} bytes exceeds the message limit")
            }
            Self::NotText => f.write_str("the reply body is not UTF-8, which a text frame requires"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_receive_a_timeout_or_internal_error_message_and_logs_name_the_cause() {
        let malformed = ProxyReply::parse(b"1").unwrap_err();
        let all = [
            Failure::TimedOut,
            Failure::Function(InvokeError::Throttled),
            Failure::Panicked("task 1 panicked".to_owned()),
            Failure::Malformed(malformed),
            Failure::Status(404),
            Failure::TooLarge(131_073),
            Failure::NotText,
        ];
        let lines: Vec<_> = all.iter().map(|failure| format!("{}: {failure}", failure.notice())).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        Endpoint request timed out: the function did not reply within the integration timeout
        Internal server error: TooManyRequestsException: Rate Exceeded.
        Internal server error: the invocation task did not finish: task 1 panicked
        Internal server error: malformed Lambda proxy reply: not a JSON object
        Internal server error: the function replied with status 404
        Internal server error: the reply body of 131073 bytes exceeds the message limit
        Internal server error: the reply body is not UTF-8, which a text frame requires
        ");
    }
}
