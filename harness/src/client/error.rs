use std::fmt;
use std::time::Duration;

use streamer::protocol::Frame;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

/// Error of a [`Client`](super::Client).
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The stage refused the WebSocket handshake with an HTTP error.
    Refused {
        /// HTTP status of the response, such as 401.
        status: u16,
        /// Body of the HTTP response, which gives the reason for the refusal.
        body: String,
    },
    /// The WebSocket connection is closed.
    Closed {
        /// Code of the close frame; `None` if there was no close frame, or the frame had no code.
        code: Option<u16>,
        /// Reason in the close frame; empty if there was no close frame, or the frame had no reason.
        reason: String,
    },
    /// No frame came within the client's time limit.
    Silent {
        /// Time limit that passed without a frame.
        patience: Duration,
        /// Texts of the frames received earlier, oldest first.
        seen: Vec<String>,
    },
    /// The stage sent this text, which is not a frame of the protocol.
    NotAFrame(String),
    /// The request failed, but the caller waited for its success.
    Failed {
        /// All frames about the request, the terminal frame last.
        frames: Vec<Frame>,
    },
    /// The request succeeded, but the caller waited for its failure.
    Succeeded {
        /// All frames about the request, the terminal frame last.
        frames: Vec<Frame>,
    },
    /// The connection failed: the URL is invalid, no server answers at the URL, or the server does not speak
    /// WebSocket.
    Transport(Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for ClientError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other error becomes the source of Transport")]
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused {
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            },
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(ProtocolError::SendAfterClosing) => {
                Self::Closed { code: None, reason: String::new() }
            }
            other => Self::Transport(Box::new(other)),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write_each = |f: &mut fmt::Formatter<'_>, frames: &[Frame]| {
            frames.iter().try_for_each(|frame| write!(f, "\n  {}", frame.to_json()))
        };
        match self {
            Self::Refused { status, body } => {
                write!(f, "the stage refused the connection with HTTP {status}: {body}")
            }
            Self::Closed { code: Some(code), reason } => {
                write!(f, "the connection was closed: {code} {reason}")
            }
            Self::Closed { code: None, .. } => f.write_str("the connection was closed without a close code"),
            Self::Silent { patience, seen } => {
                write!(f, "no frame came within {} s", patience.as_secs_f32())?;
                if !seen.is_empty() {
                    f.write_str("; frames received before:")?;
                }
                seen.iter().try_for_each(|text| write!(f, "\n  {text}"))
            }
            Self::NotAFrame(text) => {
                write!(f, "the stage sent a text that is not a frame of the protocol: {text}")
            }
            Self::Failed { frames } => {
                f.write_str("the request failed, but success was expected; frames about the request:")?;
                write_each(f, frames)
            }
            Self::Succeeded { frames } => {
                f.write_str("the request succeeded, but failure was expected; frames about the request:")?;
                write_each(f, frames)
            }
            Self::Transport(error) => write!(f, "the connection to the stage failed: {error}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(error.as_ref()),
            Self::Refused { .. }
            | Self::Closed { .. }
            | Self::Silent { .. }
            | Self::NotAFrame(_)
            | Self::Failed { .. }
            | Self::Succeeded { .. } => None,
        }
    }
}
