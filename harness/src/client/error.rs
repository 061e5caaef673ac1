use std::fmt;
use std::time::Duration;

use streamer::protocol::Frame;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

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
    /// The connection is closed.
    Closed {
        /// The close frame's code; `None` where it had none, or there was no close frame.
        code: Option<u16>,
        /// The close frame's reason.
        reason: String,
    },
    /// No frame came for this long.
    Silent {
        /// This long.
        patience: Duration,
        /// What had come before.
        seen: Vec<String>,
    },
    /// This text is no frame of the protocol.
    NotAFrame(String),
    /// The request that should have succeeded failed.
    Failed {
        /// All frames about it.
        frames: Vec<Frame>,
    },
    /// The request that should have failed succeeded.
    Succeeded {
        /// All frames about it.
        frames: Vec<Frame>,
    },
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
        let each = |f: &mut fmt::Formatter<'_>, frames: &[Frame]| {
            frames.iter().try_for_each(|frame| write!(f, "\n  {}", frame.to_json()))
        };
        match self {
            Self::Refused { status, body } => {
                write!(f, "the connection was refused with HTTP {status}: {body}")
            }
            Self::Closed { code: Some(code), reason } => {
                write!(f, "the connection was closed: {code} {reason}")
            }
            Self::Closed { code: None, .. } => f.write_str("the connection was closed: the connection ended"),
            Self::Silent { patience, seen } => {
                write!(f, "no frame came for {} s", patience.as_secs_f32())?;
                if !seen.is_empty() {
                    f.write_str("; before that came:")?;
                }
                seen.iter().try_for_each(|text| write!(f, "\n  {text}"))
            }
            Self::NotAFrame(text) => write!(f, "this is no frame of the protocol: {text}"),
            Self::Failed { frames } => {
                f.write_str("the request failed:")?;
                each(f, frames)
            }
            Self::Succeeded { frames } => {
                f.write_str("the request succeeded, which it should not:")?;
                each(f, frames)
            }
            Self::Transport(error) => write!(f, "the stage cannot be reached: {error}"),
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
