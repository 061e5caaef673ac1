//! A WebSocket as a client holds it: opened, used and closed, with an end to every wait.

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

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Connection {
    /// How long the other side has to close its end as well.
    const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

    /// Opens a connection: over TLS, if the URL begins with `wss`.
    pub(crate) async fn open(url: &str, tls: &Connector, patience: Duration) -> Result<Self, Failure> {
        let config = WebSocketConfig::default()
            // A client here has one frame at a time: the default of 128 KiB is most of what a thousand would need.
            .read_buffer_size(4 * 1024)
            .max_message_size(Some(MAX_FRAME_BYTES));
        // Small frames must not wait for the acknowledgment of earlier ones: that time is not the stage's.
        let disable_nagle = true;
        let opening = connect_async_tls_with_config(url, Some(config), disable_nagle, Some(tls.clone()));
        match timeout(patience, opening).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(error)) => Err(not_opened(error)),
            Err(_) => Err(Failure::new(format!("no answer within {patience:?}"))),
        }
    }

    pub(crate) async fn send(&mut self, text: String, until: Instant) -> Result<(), Failure> {
        match timeout_at(until, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(format!("the message was not sent: {error}"))),
            Err(_) => Err(Failure::new("the message was not sent in time")),
        }
    }

    /// The next frame; what is no frame of the protocol is a failure.
    pub(crate) async fn next_frame(&mut self, until: Instant) -> Result<Frame, Failure> {
        loop {
            let Ok(next) = timeout_at(until, self.socket.next()).await else {
                return Err(Failure::new("no frame came in time"));
            };
            match next {
                Some(Ok(Message::Text(text))) => return read(&text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err(Failure::new("a frame is not text"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| format!(" with {} {}", frame.code, frame.reason));
                    let reason = reason.unwrap_or_default();
                    return Err(Failure::new(format!("the connection was closed{}", reason.trim_end())));
                }
                Some(Err(error)) => return Err(Failure::new(format!("the connection broke: {error}"))),
                None => return Err(Failure::new("the connection was closed")),
            }
        }
    }

    /// Closes the connection, and waits a while for the other side to do so as well.
    pub(crate) async fn close(mut self) {
        let closed = async {
            // Whatever goes wrong here, the connection is gone, and nothing more was expected of it.
            let _ = self.socket.close(None).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(Self::CLOSE_PATIENCE, closed).await;
    }
}

/// TLS towards servers that a browser would trust.
pub(crate) fn tls() -> Connector {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    trusting(roots)
}

/// # Panics
/// Never: ring implements every protocol version that rustls takes for safe.
fn trusting(roots: RootCertStore) -> Connector {
    // By name, since goose's HTTP client links another provider, and rustls would not choose between two.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring implements the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each connection stands for a client that comes for the first time: none may use what another has negotiated.
    config.resumption = Resumption::disabled();
    Connector::Rustls(Arc::new(config))
}

fn read(text: &str) -> Result<Frame, Failure> {
    let error = match serde_json::from_str(text) {
        Ok(frame) => return Ok(frame),
        Err(error) => error,
    };
    // What the gateway says itself is no frame: {"message":"Internal server error","connectionId":"…","requestId":"…"}
    let by_gateway: Option<Value> = serde_json::from_str(text).ok();
    Err(match by_gateway.as_ref().and_then(|value| value["message"].as_str()) {
        Some(message) => Failure::new(format!("the gateway itself answered: {message}")),
        None => Failure::new(format!("the answer is no frame of the protocol: {error}")),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors say everything themselves")]
fn not_opened(error: tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.body().as_deref().unwrap_or_default();
            Failure::new(format!("refused with HTTP {status}{}", reason(body))).with_status(status)
        }
        other => Failure::new(format!("not connected: {other}")),
    }
}

/// What the body of a refusal says, if it is one of ours or the gateway's.
fn reason(body: &[u8]) -> String {
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

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn frame_is_parsed_and_any_other_text_fails_with_its_origin() {
        let frame = r#"{"type":"response","request_id":"r1","success":true}"#;
        assert!(matches!(read(frame), Ok(Frame::Response { .. })));
        let failure = |text| read(text).unwrap_err().to_string();
        let of_gateway = r#"{"message":"Internal server error","connectionId":"c","requestId":"q"}"#;
        assert_eq!(failure(of_gateway), "the gateway itself answered: Internal server error");
        let unknown = failure(r#"{"type":"surprise"}"#);
        assert!(unknown.starts_with("the answer is no frame of the protocol: unknown variant"), "{unknown}");
        assert!(failure("hello").starts_with("the answer is no frame of the protocol: expected value"));
    }

    #[test]
    fn refusal_body_is_included_in_the_failure_text() {
        let refused = |body: &str| reason(body.as_bytes());
        assert_eq!(
            refused(r#"{"code":"TOKEN_EXPIRED","message":"The token has expired"}"#),
            ": TOKEN_EXPIRED: The token has expired"
        );
        assert_eq!(refused(r#"{"message":"Forbidden"}"#), ": Forbidden");
        assert_eq!(refused("<html>"), "");
    }

    /// A server with a certificate of its own making, which says one frame to whoever comes in over TLS.
    async fn over_tls(certified: CertifiedKey<rcgen::KeyPair>) -> String {
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
        let url = over_tls(certified).await;

        let stranger = Connection::open(&url, &tls(), PATIENCE).await.unwrap_err().to_string();
        assert!(stranger.contains("invalid peer certificate"), "{stranger}");

        let mut connection = Connection::open(&url, &trusting(roots), PATIENCE).await.unwrap();
        let frame = connection.next_frame(Instant::now() + PATIENCE).await;
        assert!(matches!(frame, Ok(Frame::Response { .. })), "{frame:?}");
        connection.close().await;
    }
}
