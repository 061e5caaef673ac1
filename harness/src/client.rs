//! A WebSocket client for tests and for the `streamer` command.

use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use streamer::protocol::Frame;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A connection to a stage.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Connects with a token.
    ///
    /// # Errors
    /// When nobody listens, or the token is refused.
    pub async fn connect(ws_url: &str, token: &str) -> Result<Self, ClientError> {
        let (socket, _) = connect_async(format!("{ws_url}?token={token}")).await?;
        Ok(Self { socket })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn request(&mut self, action: &str, id: &str, payload: &Value) -> Result<(), ClientError> {
        self.send_text(json!({"action": action, "id": id, "payload": payload}).to_string()).await
    }

    /// Sends any text.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), ClientError> {
        Ok(self.socket.send(Message::text(text.into())).await?)
    }

    /// The next frame, as text.
    ///
    /// # Errors
    /// When none comes within `patience`, or the connection is closed.
    pub async fn next_text(&mut self, patience: Duration) -> Result<String, ClientError> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                    Some(Ok(Message::Close(frame))) => {
                        let reason = frame.map(|frame| format!("{} {}", frame.code, frame.reason));
                        return Err(ClientError::Closed(reason.unwrap_or_else(|| "no reason given".into())));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(ClientError::Closed("the connection ended".into())),
                }
            }
        };
        tokio::time::timeout(patience, next).await.unwrap_or(Err(ClientError::Silent(patience)))
    }

    /// The next frame.
    ///
    /// # Errors
    /// As [`next_text`](Self::next_text); also when it is none of the protocol's.
    pub async fn next_frame(&mut self, patience: Duration) -> Result<Frame, ClientError> {
        let text = self.next_text(patience).await?;
        serde_json::from_str(&text).map_err(|_| ClientError::NotAFrame(text))
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    /// When it is closed already.
    pub async fn close(mut self) -> Result<(), ClientError> {
        Ok(self.socket.close(None).await?)
    }
}

/// What went wrong between a client and its stage.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The upgrade was refused, with this status and body.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body, which says why.
        body: String,
    },
    /// The connection is closed, for this reason.
    Closed(String),
    /// No frame came for this long.
    Silent(Duration),
    /// This text is no frame of the protocol.
    NotAFrame(String),
    /// Nobody listens, or what they say is no WebSocket.
    Transport(Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for ClientError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all else is kept as it is")]
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused {
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            },
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed("the connection ended".into())
            }
            other => Self::Transport(Box::new(other)),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, body } => {
                write!(f, "the connection was refused with HTTP {status}: {body}")
            }
            Self::Closed(reason) => write!(f, "the connection was closed: {reason}"),
            Self::Silent(patience) => write!(f, "no frame came for {} s", patience.as_secs_f32()),
            Self::NotAFrame(text) => write!(f, "this is no frame of the protocol: {text}"),
            Self::Transport(error) => write!(f, "the stage cannot be reached: {error}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(error.as_ref()),
            Self::Refused { .. } | Self::Closed(_) | Self::Silent(_) | Self::NotAFrame(_) => None,
        }
    }
}
