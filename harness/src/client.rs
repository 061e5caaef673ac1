//! A WebSocket client for tests and for the `streamer` command.
//!
//! [`Stage::connect`](crate::stage::Stage::connect) connects a client to a stage in process,
//! [`Client::connect`] to any stage that has a URL. A client waits for the next frame, for the terminal frame
//! of a request, or for the close of the connection. If the expected frame does not come, the error lists the
//! frames that were received.

mod error;

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use streamer::protocol::{ErrorBody, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, connect_async};

pub use error::ClientError;

/// The WebSocket that carries a client's messages, over a socket or over an in-process byte stream.
trait Channel:
    Stream<Item = Result<Message, tungstenite::Error>>
    + Sink<Message, Error = tungstenite::Error>
    + fmt::Debug
    + Send
    + Unpin
{
}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Channel for WebSocketStream<S> {}

/// A client's WebSocket connection to a stage.
#[derive(Debug)]
pub struct Client {
    channel: Box<dyn Channel>,
    headers: HeaderMap,
    patience: Duration,
    /// Maximum wait for a frame by the machine's clock; `None` if unlimited. A stage in process needs this
    /// limit, because `patience` is measured by tokio's clock, which may be paused.
    real_patience: Option<Duration>,
    /// Received frames that no method has returned yet, oldest first.
    buffered: VecDeque<Frame>,
    /// Texts of the last received frames, for error messages.
    seen: Vec<String>,
}

impl Client {
    /// Default maximum wait for the next frame; see [`set_patience`](Self::set_patience).
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Interval at which a waiting client checks the machine's clock.
    const REAL_CLOCK_INTERVAL: Duration = Duration::from_secs(1);

    /// Size of the read buffer in bytes. Most frames fit into 4 KiB.
    const READ_BUFFER_BYTES: usize = 4 * 1024;

    /// Maximum number of received frames that are kept for error messages.
    const MAX_SEEN: usize = 1_000;

    /// Connects to a stage's WebSocket URL, with the token in the query parameter `token`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the stage refuses the token, [`ClientError::Transport`] if no stage
    /// answers at the URL.
    pub async fn connect(ws_url: &str, token: &str) -> Result<Self, ClientError> {
        Self::open(format!("{ws_url}?token={token}")).await
    }

    /// Connects with a custom handshake: `request` is a URL, or an HTTP request with its own headers.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the stage refuses the connection, [`ClientError::Transport`] if no stage
    /// answers.
    pub async fn open(request: impl IntoClientRequest + Unpin) -> Result<Self, ClientError> {
        let (socket, response) = connect_async(request).await?;
        Ok(Self::over(socket, response.headers().clone(), Self::PATIENCE))
    }

    /// Makes a client from the byte stream of an open WebSocket, which
    /// [`Stage::open_stream`](crate::stage::Stage::open_stream) returns.
    ///
    /// `headers` are the headers of the handshake's response. `patience` is the maximum wait for a frame.
    pub async fn on<S>(stream: S, headers: HeaderMap, patience: Duration) -> Self
    where
        S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static,
    {
        // tungstenite clears the whole read buffer before each read. Clearing its default of 128 KiB would
        // cost more than reading most messages.
        let config = WebSocketConfig::default().read_buffer_size(Self::READ_BUFFER_BYTES);
        let channel = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Self { real_patience: Some(Self::PATIENCE), ..Self::over(channel, headers, patience) }
    }

    fn over(channel: impl Channel + 'static, headers: HeaderMap, patience: Duration) -> Self {
        let channel = Box::new(channel);
        Self { channel, headers, patience, real_patience: None, buffered: VecDeque::new(), seen: Vec::new() }
    }

    /// Returns the headers of the handshake's response, such as `Sec-WebSocket-Protocol`.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Sets the maximum wait for the next frame.
    ///
    /// Over a socket, the default is 30 s. In process, the default is 590 s of the stage's time, because the
    /// gateway closes an idle connection after 600 s, and also 30 s of the machine's time. Calling this
    /// method removes the limit on the machine's time.
    pub fn set_patience(&mut self, patience: Duration) {
        (self.patience, self.real_patience) = (patience, None);
    }

    /// Sends a request for `action` with the request id `id`.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection is closed, [`ClientError::Transport`] if sending fails.
    pub async fn request(
        &mut self,
        action: &str,
        id: &str,
        payload: impl Borrow<Value>,
    ) -> Result<(), ClientError> {
        self.send_text(json!({"action": action, "id": id, "payload": payload.borrow()}).to_string()).await
    }

    /// Sends a text message as it is, whether or not it is a valid request.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection is closed, [`ClientError::Transport`] if sending fails.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), ClientError> {
        self.send(Message::text(text.into())).await
    }

    /// Sends a WebSocket message of any kind: text, binary or ping.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection is closed, [`ClientError::Transport`] if sending fails.
    pub async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        Ok(self.channel.send(message).await?)
    }

    /// Waits for the next frame from the stage, and returns its text.
    ///
    /// Frames that [`complete`](Self::complete) or another method has already received and buffered are not
    /// returned.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if no frame comes in time, [`ClientError::Closed`] if the connection is
    /// closed.
    pub async fn next_text(&mut self) -> Result<String, ClientError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "only the machine's clock detects a hang, because tokio's clock may be paused"
        )]
        let begun = std::time::Instant::now();
        let deadline = Instant::now() + self.patience;
        loop {
            // A paused tokio clock jumps to `next_check` immediately, so that these checks take almost no
            // machine time.
            let next_check = deadline.min(Instant::now() + Self::REAL_CLOCK_INTERVAL);
            if let Ok(next) = timeout_at(next_check, self.next_text_without_timeout()).await {
                return next;
            }
            if Instant::now() >= deadline {
                return Err(self.silent(self.patience));
            }
            if let Some(patience) = self.real_patience.filter(|patience| begun.elapsed() >= *patience) {
                return Err(self.silent(patience));
            }
        }
    }

    /// Waits without a time limit for the next frame, and returns its text. If the call is cancelled, no
    /// frame is lost.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection is closed, [`ClientError::Transport`] if the connection
    /// fails.
    pub async fn next_text_without_timeout(&mut self) -> Result<String, ClientError> {
        loop {
            match self.channel.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.keep(text.as_str());
                    return Ok(text.as_str().to_owned());
                }
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ClientError::Closed { code: None, reason: String::new() }),
            }
        }
    }

    /// Returns the next frame: the oldest buffered frame, or the next frame from the stage.
    ///
    /// # Errors
    /// The errors of [`next_text`](Self::next_text), and [`ClientError::NotAFrame`] if the text is not a
    /// frame of the protocol.
    pub async fn next_frame(&mut self) -> Result<Frame, ClientError> {
        match self.buffered.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame().await,
        }
    }

    async fn read_frame(&mut self) -> Result<Frame, ClientError> {
        let text = self.next_text().await?;
        serde_json::from_str(&text).map_err(|_| ClientError::NotAFrame(text))
    }

    /// Waits for the terminal frame of request `id`, and returns every frame about that request, the terminal
    /// frame last.
    ///
    /// Frames about other requests stay buffered for later calls. If the call is cancelled or fails, all
    /// frames stay buffered.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if no frame comes in time, [`ClientError::Closed`] if the connection is
    /// closed.
    pub async fn frames_until_terminal(&mut self, id: &str) -> Result<Vec<Frame>, ClientError> {
        let is_about = |frame: &Frame| frame.request_id().is_some_and(|about| about.as_str() == id);
        let mut checked = 0;
        let last = loop {
            let mut unseen = self.buffered.iter().skip(checked);
            if let Some(at) = unseen.position(|frame| is_about(frame) && frame.is_terminal()) {
                break checked + at;
            }
            checked = self.buffered.len();
            let frame = self.read_frame().await?;
            self.buffered.push_back(frame);
        };
        let later = self.buffered.split_off(last + 1);
        let until_last = std::mem::take(&mut self.buffered);
        let (frames, others): (VecDeque<_>, VecDeque<_>) = until_last.into_iter().partition(is_about);
        self.buffered = others;
        self.buffered.extend(later);
        Ok(frames.into())
    }

    /// Waits until request `id` succeeds, and returns its result.
    ///
    /// # Errors
    /// [`ClientError::Failed`] with all frames about the request if the request fails, and the errors of
    /// [`frames_until_terminal`](Self::frames_until_terminal).
    pub async fn complete(&mut self, id: &str) -> Result<Value, ClientError> {
        let frames = self.frames_until_terminal(id).await?;
        match frames.last() {
            Some(Frame::Complete { result, .. }) => Ok(result.clone()),
            Some(Frame::Response { success: true, data, .. }) => Ok(data.clone().unwrap_or_default()),
            Some(_) | None => Err(ClientError::Failed { frames }),
        }
    }

    /// Waits until request `id` fails, and returns its error.
    ///
    /// # Errors
    /// [`ClientError::Succeeded`] with all frames about the request if the request succeeds, and the errors
    /// of [`frames_until_terminal`](Self::frames_until_terminal).
    pub async fn failure(&mut self, id: &str) -> Result<ErrorBody, ClientError> {
        let frames = self.frames_until_terminal(id).await?;
        match frames.last() {
            Some(Frame::Error { error, .. } | Frame::Response { error: Some(error), .. }) => {
                Ok(error.clone())
            }
            Some(_) | None => Err(ClientError::Succeeded { frames }),
        }
    }

    /// Waits until the stage closes the connection, and returns the close frame's code and reason.
    ///
    /// Frames that come before the close stay buffered for [`next_frame`](Self::next_frame).
    ///
    /// # Errors
    /// [`ClientError::Silent`] if the stage neither sends a frame nor closes in time, [`ClientError::Closed`]
    /// without a code if the connection ends without a close frame.
    pub async fn closed(&mut self) -> Result<(u16, String), ClientError> {
        loop {
            match self.read_frame().await {
                Ok(frame) => self.buffered.push_back(frame),
                Err(ClientError::NotAFrame(_)) => {}
                Err(ClientError::Closed { code: Some(code), reason }) => return Ok((code, reason)),
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(&mut self, text: &str) {
        if self.seen.len() >= Self::MAX_SEEN {
            self.seen.drain(..Self::MAX_SEEN / 2);
        }
        self.seen.push(text.to_owned());
    }

    /// Returns the texts of the last frames received, oldest first: at least the last 500, or all frames if
    /// there were fewer.
    #[must_use]
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Closes the connection with a WebSocket close frame.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection is already closed.
    pub async fn close(mut self) -> Result<(), ClientError> {
        Ok(self.channel.close().await?)
    }

    fn silent(&self, patience: Duration) -> ClientError {
        ClientError::Silent { patience, seen: self.seen.clone() }
    }
}

fn closed(frame: Option<CloseFrame>) -> ClientError {
    let (code, reason) = frame.map_or((None, String::new()), |CloseFrame { code, reason }| {
        (Some(code.into()), reason.as_str().to_owned())
    });
    ClientError::Closed { code, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn in_process_client_times_out_by_the_machines_clock() {
        let (here, _there) = tokio::io::duplex(64);
        let mut client = Client::on(here, HeaderMap::new(), Duration::from_secs(590)).await;
        assert_eq!(client.real_patience, Some(Duration::from_secs(30)));
        client.real_patience = Some(Duration::from_millis(1));
        let silent = client.next_text().await.unwrap_err();
        assert!(
            matches!(silent, ClientError::Silent { patience, .. } if patience.as_millis() == 1),
            "{silent}"
        );
        client.set_patience(Duration::from_millis(2));
        assert_eq!(client.real_patience, None);
    }
}
