//! A WebSocket client for tests and for the `streamer` command.
//!
//! The same client speaks to a stage in process ([`Stage::connect`](crate::stage::Stage::connect)) and to any stage that has
//! a URL ([`Client::connect`]). What it waits for is a frame, the end of a request, or the end of the connection; what does
//! not come is an error that shows every frame that came instead.

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

/// What carries a client's messages, with or without a socket.
trait Channel:
    Stream<Item = Result<Message, tungstenite::Error>>
    + Sink<Message, Error = tungstenite::Error>
    + fmt::Debug
    + Send
    + Unpin
{
}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Channel for WebSocketStream<S> {}

/// A connection to a stage.
#[derive(Debug)]
pub struct Client {
    channel: Box<dyn Channel>,
    headers: HeaderMap,
    patience: Duration,
    /// How long it waits by the machine's own clock, where the tokio one that patience is measured by may be paused.
    real_patience: Option<Duration>,
    /// Frames that came while others were waited for.
    aside: VecDeque<Frame>,
    /// Everything that came, as it came, for errors to show.
    seen: Vec<String>,
}

impl Client {
    /// How long a client waits for the next frame, unless [it is told otherwise](Self::set_patience).
    const PATIENCE: Duration = Duration::from_secs(30);

    /// How often it looks at the machine's clock while it waits.
    const LOOK_UP: Duration = Duration::from_secs(1);

    /// Most frames fit into it.
    const READ_BUFFER_BYTES: usize = 4 * 1024;

    /// The most frames that are kept for errors to show.
    const SEEN: usize = 1_000;

    /// Connects with a token.
    ///
    /// # Errors
    /// When nobody listens, or the token is refused.
    pub async fn connect(ws_url: &str, token: &str) -> Result<Self, ClientError> {
        Self::open(format!("{ws_url}?token={token}")).await
    }

    /// Connects with a request of any kind: a URL, or an HTTP request with headers of its own.
    ///
    /// # Errors
    /// When nobody listens, or the connection is refused.
    pub async fn open(request: impl IntoClientRequest + Unpin) -> Result<Self, ClientError> {
        let (socket, response) = connect_async(request).await?;
        Ok(Self::over(socket, response.headers().clone(), Self::PATIENCE))
    }

    /// A client on the byte stream of a WebSocket that is open, such as [`Stage::open_stream`](crate::stage::Stage::open_stream)
    /// returns. `headers` are those of the handshake's answer; `patience` is how long it waits for a frame.
    pub async fn on<S>(stream: S, headers: HeaderMap, patience: Duration) -> Self
    where
        S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static,
    {
        // Each read begins by clearing it all: one of 128 KiB, as by default, would cost more than most messages.
        let config = WebSocketConfig::default().read_buffer_size(Self::READ_BUFFER_BYTES);
        let channel = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Self { real_patience: Some(Self::PATIENCE), ..Self::over(channel, headers, patience) }
    }

    fn over(channel: impl Channel + 'static, headers: HeaderMap, patience: Duration) -> Self {
        let channel = Box::new(channel);
        Self { channel, headers, patience, real_patience: None, aside: VecDeque::new(), seen: Vec::new() }
    }

    /// The headers of the answer that opened the connection, such as `Sec-WebSocket-Protocol`.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How long to wait for the next frame; by default 30 s over a socket, and in process 590 s, as after 600 s
    /// the gateway closes an idle connection, but no more than 30 s of the machine's own time.
    pub fn set_patience(&mut self, patience: Duration) {
        (self.patience, self.real_patience) = (patience, None);
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn request(
        &mut self,
        action: &str,
        id: &str,
        payload: impl Borrow<Value>,
    ) -> Result<(), ClientError> {
        self.send_text(json!({"action": action, "id": id, "payload": payload.borrow()}).to_string()).await
    }

    /// Sends any text.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), ClientError> {
        self.send(Message::text(text.into())).await
    }

    /// Sends any message: text, bytes, a ping.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        Ok(self.channel.send(message).await?)
    }

    /// The next frame, as text; frames that [`complete`](Self::complete) and its like have set aside are not among these.
    ///
    /// # Errors
    /// When none comes, or the connection is closed.
    pub async fn next_text(&mut self) -> Result<String, ClientError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a hang is told by the machine's time, not by one that is paused"
        )]
        let begun = std::time::Instant::now();
        let deadline = Instant::now() + self.patience;
        loop {
            // A paused clock leaps from one of these moments to the next, in no time of the machine's own.
            let look_up = deadline.min(Instant::now() + Self::LOOK_UP);
            if let Ok(next) = timeout_at(look_up, self.next_text_without_timeout()).await {
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

    /// The next frame, as text, however long it takes; cancelled, nothing is lost.
    ///
    /// # Errors
    /// When the connection is closed or fails.
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

    /// The next frame.
    ///
    /// # Errors
    /// As [`next_text`](Self::next_text); also when it is none of the protocol's.
    pub async fn next_frame(&mut self) -> Result<Frame, ClientError> {
        match self.aside.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame().await,
        }
    }

    async fn read_frame(&mut self) -> Result<Frame, ClientError> {
        let text = self.next_text().await?;
        serde_json::from_str(&text).map_err(|_| ClientError::NotAFrame(text))
    }

    /// Every frame about request `id` until it has ended, its last one included. Frames about other requests that come
    /// meanwhile are kept for whoever asks for them next, and so is every frame if this is cancelled or fails.
    ///
    /// # Errors
    /// When none comes, or the connection is closed.
    pub async fn frames_until_terminal(&mut self, id: &str) -> Result<Vec<Frame>, ClientError> {
        let is_about = |frame: &Frame| frame.request_id().is_some_and(|about| about.as_str() == id);
        let mut looked_at = 0;
        let last = loop {
            let mut unseen = self.aside.iter().skip(looked_at);
            if let Some(at) = unseen.position(|frame| is_about(frame) && frame.is_terminal()) {
                break looked_at + at;
            }
            looked_at = self.aside.len();
            let frame = self.read_frame().await?;
            self.aside.push_back(frame);
        };
        let later = self.aside.split_off(last + 1);
        let until_last = std::mem::take(&mut self.aside);
        let (frames, others): (VecDeque<_>, VecDeque<_>) = until_last.into_iter().partition(is_about);
        self.aside = others;
        self.aside.extend(later);
        Ok(frames.into())
    }

    /// What request `id` ends with: the data of its response, or the result of its work.
    ///
    /// # Errors
    /// When it fails, with all frames about it; when it does not end, or the connection is closed.
    pub async fn complete(&mut self, id: &str) -> Result<Value, ClientError> {
        let frames = self.frames_until_terminal(id).await?;
        match frames.last() {
            Some(Frame::Complete { result, .. }) => Ok(result.clone()),
            Some(Frame::Response { success: true, data, .. }) => Ok(data.clone().unwrap_or_default()),
            Some(_) | None => Err(ClientError::Failed { frames }),
        }
    }

    /// What request `id` fails with.
    ///
    /// # Errors
    /// When it succeeds, with all frames about it; when it does not end, or the connection is closed.
    pub async fn failure(&mut self, id: &str) -> Result<ErrorBody, ClientError> {
        let frames = self.frames_until_terminal(id).await?;
        match frames.last() {
            Some(Frame::Error { error, .. } | Frame::Response { error: Some(error), .. }) => {
                Ok(error.clone())
            }
            Some(_) | None => Err(ClientError::Succeeded { frames }),
        }
    }

    /// Waits until the stage closes the connection, and returns the close frame's code and reason. Frames that come
    /// before it are kept for [`next_frame`](Self::next_frame).
    ///
    /// # Errors
    /// When it does not, or ends the connection without a close frame.
    pub async fn closed(&mut self) -> Result<(u16, String), ClientError> {
        loop {
            match self.read_frame().await {
                Ok(frame) => self.aside.push_back(frame),
                Err(ClientError::NotAFrame(_)) => {}
                Err(ClientError::Closed { code: Some(code), reason }) => return Ok((code, reason)),
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(&mut self, text: &str) {
        if self.seen.len() >= Self::SEEN {
            self.seen.drain(..Self::SEEN / 2);
        }
        self.seen.push(text.to_owned());
    }

    /// What the client was sent last, as it came: at least 500 frames, if there were as many.
    #[must_use]
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    /// When it is closed already.
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
    async fn where_time_is_real_a_client_in_process_gives_up_by_the_machines_clock() {
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
