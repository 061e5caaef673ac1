//! A client's WebSocket connection. Opening, sending, receiving and closing each have a time limit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use streamer_protocol::{Frame, MAX_FRAME_BYTES};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::measure::Failure;

/// An open WebSocket connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Connection {
    /// Maximum wait for the server's close frame.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Opens a connection within `timeout_after`, over TLS if the URL begins with `wss`.
    pub(crate) async fn open(url: &str, tls: &Connector, timeout_after: Duration) -> Result<Self, Failure> {
        let config = WebSocketConfig::default()
            // A client receives one small frame at a time. The default buffer of 128 KiB would dominate the
            // memory of a thousand clients.
            .read_buffer_size(4 * 1024)
            .max_message_size(Some(MAX_FRAME_BYTES));
        // With Nagle's algorithm, small frames would wait for TCP acknowledgments, and the measured time would
        // grow.
        let disable_nagle = true;
        let handshake = connect_async_tls_with_config(url, Some(config), disable_nagle, Some(tls.clone()));
        match timeout(timeout_after, handshake).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(error)) => Err(handshake_failure(error)),
            Err(_) => Err(Failure::new(format!("no connection within {timeout_after:?}"))),
        }
    }

    pub(crate) async fn send(&mut self, text: String, until: Instant) -> Result<(), Failure> {
        match timeout_at(until, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(format!("message could not be sent: {error}"))),
            Err(_) => Err(Failure::new("message not sent before the timeout")),
        }
    }

    /// Receives the next frame. A message that is not a frame of Streamer's protocol is a failure.
    pub(crate) async fn next_frame(&mut self, until: Instant) -> Result<Frame, Failure> {
        loop {
            let Ok(next) = timeout_at(until, self.socket.next()).await else {
                return Err(Failure::new("no frame before the timeout"));
            };
            match next {
                Some(Ok(Message::Text(text))) => return parse_frame(&text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err(Failure::new("received a binary message instead of text"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| format!(" with {} {}", frame.code, frame.reason));
                    let reason = reason.unwrap_or_default();
                    return Err(Failure::new(format!(
                        "connection closed by the server{}",
                        reason.trim_end()
                    )));
                }
                Some(Err(error)) => return Err(Failure::new(format!("connection failed: {error}"))),
                None => return Err(Failure::new("connection closed by the server")),
            }
        }
    }

    /// Closes the connection, and waits for the server to close it too, at most `CLOSE_TIMEOUT`.
    pub(crate) async fn close(mut self) {
        let closed = async {
            // Errors are ignored, because the visit is over and no frame is awaited.
            let _ = self.socket.close(None).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(Self::CLOSE_TIMEOUT, closed).await;
    }
}

/// Returns a TLS connector that trusts the servers that a browser trusts.
pub(crate) fn tls() -> Connector {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    trusting(roots)
}

/// Returns a TLS connector that trusts certificates signed by these roots.
fn trusting(roots: RootCertStore) -> Connector {
    // The provider is named, because goose's HTTP client links a second provider, and with two providers
    // rustls has no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions of rustls")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each connection represents a new client, so it must not resume the TLS session of an earlier
    // connection.
    config.resumption = Resumption::disabled();
    Connector::Rustls(Arc::new(config))
}

fn parse_frame(text: &str) -> Result<Frame, Failure> {
    let error = match serde_json::from_str(text) {
        Ok(frame) => return Ok(frame),
        Err(error) => error,
    };
    // A message of API Gateway itself looks like {"message":"Internal server
    // error","connectionId":"…","requestId":"…"}.
    let gateway_message: Option<Value> = serde_json::from_str(text).ok();
    Err(match gateway_message.as_ref().and_then(|value| value["message"].as_str()) {
        Some(message) => Failure::new(format!("API Gateway answered instead of the router: {message}")),
        None => Failure::new(format!("message is not a frame of the protocol: {error}")),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the `Display` text of each remaining error is complete")]
fn handshake_failure(error: tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.body().as_deref().unwrap_or_default();
            Failure::new(format!("refused with HTTP {status}{}", refusal_reason(body))).with_status(status)
        }
        other => Failure::new(format!("could not connect: {other}")),
    }
}

/// Returns the code and the message from the body of a refusal, each with the prefix `: `. The refusal comes
/// from the connect function or from API Gateway. Returns an empty text for any other body.
fn refusal_reason(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let parts = [&body["code"], &body["message"]];
    parts.into_iter().filter_map(Value::as_str).map(|part| format!(": {part}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_tungstenite::accept_async;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn protocol_frame_is_parsed_and_gateway_error_or_invalid_text_is_a_failure() {
        let frame = r#"{"type":"response","request_id":"r1","success":true}"#;
        assert!(matches!(parse_frame(frame), Ok(Frame::Response { .. })));
        let failure = |text| parse_frame(text).unwrap_err().to_string();
        let from_gateway = r#"{"message":"Internal server error","connectionId":"c","requestId":"q"}"#;
        assert_eq!(
            failure(from_gateway),
            "API Gateway answered instead of the router: Internal server error"
        );
        let unknown = failure(r#"{"type":"surprise"}"#);
        assert!(unknown.starts_with("message is not a frame of the protocol: unknown variant"), "{unknown}");
        assert!(failure("hello").starts_with("message is not a frame of the protocol: expected value"));
    }

    #[test]
    fn refusal_body_is_included_in_the_failure_text() {
        let reason = |body: &str| refusal_reason(body.as_bytes());
        assert_eq!(
            reason(r#"{"code":"TOKEN_EXPIRED","message":"The token has expired"}"#),
            ": TOKEN_EXPIRED: The token has expired"
        );
        assert_eq!(reason(r#"{"message":"Forbidden"}"#), ": Forbidden");
        assert_eq!(reason("<html>"), "");
    }

    /// Serves WebSockets over TLS with this self-signed certificate, and sends one frame on each connection.
    async fn serve_over_tls(certified: CertifiedKey<rcgen::KeyPair>) -> String {
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://localhost:{}/prod", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let mut socket = accept_async(stream).await.unwrap();
                let frame = r#"{"type":"response","request_id":"r1","success":true}"#;
                socket.send(Message::text(frame)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
            }
        });
        url
    }

    #[tokio::test]
    async fn tls_connection_opens_only_with_a_trusted_server_certificate() {
        let certified = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let url = serve_over_tls(certified).await;

        let untrusted = Connection::open(&url, &tls(), TIMEOUT).await.unwrap_err().to_string();
        assert!(untrusted.contains("invalid peer certificate"), "{untrusted}");

        let mut connection = Connection::open(&url, &trusting(roots), TIMEOUT).await.unwrap();
        let frame = connection.next_frame(Instant::now() + TIMEOUT).await;
        assert!(matches!(frame, Ok(Frame::Response { .. })), "{frame:?}");
        connection.close().await;
    }
}
