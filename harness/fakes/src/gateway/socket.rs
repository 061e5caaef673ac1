//! One open WebSocket: reads messages, sends frames, enforces time limits, and closes the connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::api::Api;
use super::connections::Connection;
use super::event::DisconnectStatus;
use super::limits::{Limits, UndocumentedBehavior};
use crate::observe::Observation;

/// Serves a connection until the connection ends, and then invokes the function of `$disconnect`.
pub(super) async fn run<S>(
    api: Arc<Api>,
    connection: Arc<Connection>,
    frames: mpsc::Receiver<Utf8Bytes>,
    stream: S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = &api.config.limits;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_frame_size(Some(limits.frame_bytes))
        .max_message_size(Some(limits.message_bytes));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let mut open = OpenSocket { api: &api, connection: &connection, frames, socket };
    let mut messages = JoinSet::new();
    let end = open.serve(&mut messages).await;
    // Messages that arrived before the connection ended are still handled: their tasks outlive this function.
    messages.detach_all();
    api.connections.remove(connection.id());
    // Closing the queue makes posts that wait for room in the queue fail immediately.
    open.frames.close();
    let status = end.disconnect_status(&api.config.unconfirmed);
    let id = connection.id();
    api.faults().notify(|| Observation::Ended { connection: id.to_string(), code: status.code });
    // `$disconnect` does not wait for the closing handshake with the client. The closing handshake does not
    // wait for `$disconnect` either: the socket is dropped as soon as the handshake is complete.
    let closed = async move {
        open.close(end, limits).await;
        drop(open);
    };
    tokio::join!(closed, api.disconnected(&connection.info, &status));
}

/// Size of a connection's read buffer. With tungstenite's default of 128 KiB, the buffer would be most of the
/// memory that an idle connection uses.
const READ_BUFFER_BYTES: usize = 4_096;

/// Reason why a WebSocket ends.
enum SocketEnd {
    /// The client sent a close frame.
    Client(Option<CloseFrame>),
    /// The client disappeared without a close frame.
    Vanished,
    /// The gateway closes the connection.
    Gateway(DisconnectStatus),
    /// The gateway closes the connection because the client's data can no longer be parsed.
    Unreadable(DisconnectStatus),
}

impl SocketEnd {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error means that the client is unreachable"
    )]
    fn of_error(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Unreadable(DisconnectStatus::new(1009, "Message too big")),
            Error::Utf8(_) => Self::Unreadable(DisconnectStatus::new(1007, "Invalid frame payload data")),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Vanished,
            Error::Protocol(_) => Self::Unreadable(DisconnectStatus::new(1002, "Protocol error")),
            _ => Self::Vanished,
        }
    }

    /// Returns the close code and reason that the `$disconnect` event reports.
    fn disconnect_status(&self, unconfirmed: &UndocumentedBehavior) -> DisconnectStatus {
        match self {
            Self::Client(Some(frame)) => DisconnectStatus::new(frame.code.into(), frame.reason.as_str()),
            Self::Client(None) => DisconnectStatus::new(1005, "Client-side close frame status not set"),
            Self::Vanished => DisconnectStatus::new(1006, &*unconfirmed.abnormal_close_reason),
            Self::Gateway(status) | Self::Unreadable(status) => status.clone(),
        }
    }
}

struct OpenSocket<'a, S> {
    api: &'a Arc<Api>,
    connection: &'a Arc<Connection>,
    frames: mpsc::Receiver<Utf8Bytes>,
    socket: WebSocketStream<S>,
}

/// Event of the WebSocket stream: pending data was flushed, or a message, an error or the end of the stream
/// was received.
enum SocketEvent {
    Flushed(Result<(), Error>),
    Received(Option<Result<Message, Error>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> OpenSocket<'_, S> {
    async fn serve(&mut self, messages: &mut JoinSet<()>) -> SocketEnd {
        let config = &self.api.config;
        let limits = &config.limits;
        let expires = Instant::now() + limits.connection_lifetime;
        let mut idles = Instant::now() + limits.idle_timeout;
        let mut timer = pin!(sleep_until(idles.min(expires)));
        // Create `closing` and `deleted` once, outside of the loop: registering each waiter takes a lock, and
        // all connections share the lock of `closing`.
        let mut closing = pin!(self.api.active.closing());
        let connection = self.connection;
        let mut deleted = pin!(connection.deleted.notified());
        let mut sending = false;
        loop {
            // At the limit of messages in flight, stop reading: TCP backpressure then slows the client down.
            let reading = messages.len() < limits.messages_in_flight;
            let socket = &mut self.socket;
            let event = poll_fn(|cx| {
                if sending && let Poll::Ready(flushed) = socket.poll_flush_unpin(cx) {
                    return Poll::Ready(SocketEvent::Flushed(flushed));
                }
                if reading { socket.poll_next_unpin(cx).map(SocketEvent::Received) } else { Poll::Pending }
            });
            let event = tokio::select! {
                biased;
                () = &mut closing => return SocketEnd::Gateway(DisconnectStatus::new(1001, "Going away")),
                () = &mut deleted => {
                    let (code, reason) = &config.unconfirmed.delete_close;
                    return SocketEnd::Gateway(DisconnectStatus::new(*code, reason));
                }
                () = &mut timer => {
                    let now = Instant::now();
                    if now >= expires {
                        return SocketEnd::Gateway(DisconnectStatus::new(1001, &*config.unconfirmed.lifetime_close_reason));
                    } else if now >= idles {
                        return SocketEnd::Gateway(DisconnectStatus::new(1001, "Going away"));
                    }
                    // The timer is reset only when it fires, because a reset for every message would cost
                    // more.
                    timer.as_mut().reset(idles.min(expires));
                    continue;
                }
                Some(ended) = messages.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(connection = %connection.id(), %error, "message task panicked; message lost");
                    }
                    continue;
                }
                Some(frame) = self.frames.recv(), if !sending => {
                    if let Err(error) = self.socket.start_send_unpin(Message::Text(frame)) {
                        return SocketEnd::of_error(&error);
                    }
                    sending = true;
                    continue;
                }
                event = event => event,
            };
            let active = match event {
                SocketEvent::Flushed(Ok(())) => {
                    sending = false;
                    true
                }
                SocketEvent::Received(Some(Ok(Message::Text(body)))) => {
                    let api = Arc::clone(self.api);
                    messages.spawn(api.message(Arc::clone(connection), body));
                    true
                }
                SocketEvent::Received(Some(Ok(Message::Ping(_)))) => config.unconfirmed.ping_resets_idle,
                SocketEvent::Received(Some(Ok(Message::Pong(_) | Message::Frame(_)))) => false,
                SocketEvent::Received(Some(Ok(Message::Binary(_)))) => {
                    return SocketEnd::Gateway(DisconnectStatus::new(1003, "Unsupported data"));
                }
                SocketEvent::Received(Some(Ok(Message::Close(frame)))) => return SocketEnd::Client(frame),
                SocketEvent::Received(None) => return SocketEnd::Vanished,
                SocketEvent::Flushed(Err(error)) | SocketEvent::Received(Some(Err(error))) => {
                    return SocketEnd::of_error(&error);
                }
            };
            if active {
                idles = Instant::now() + limits.idle_timeout;
                connection.touch(self.api.clock.now());
            }
        }
    }

    /// Performs the part of the closing handshake that `end` still requires, for at most
    /// [`Limits::close_timeout`].
    async fn close(&mut self, end: SocketEnd, limits: &Limits) {
        let closed = timeout(limits.close_timeout, async {
            match end {
                SocketEnd::Vanished => Ok(()),
                SocketEnd::Client(_) => self.drain().await,
                SocketEnd::Gateway(status) => {
                    self.send_rest(status).await?;
                    self.drain().await
                }
                SocketEnd::Unreadable(status) => {
                    self.send_rest(status).await?;
                    self.drain_raw().await.map_err(Error::Io)
                }
            }
        });
        if let Ok(Err(error)) = closed.await {
            tracing::debug!(connection = %self.connection.id(), %error, "closing handshake failed");
        }
    }

    /// Sends the frames that were queued before the connection ended, and then the close frame.
    async fn send_rest(&mut self, status: DisconnectStatus) -> Result<(), Error> {
        while let Some(frame) = self.frames.recv().await {
            self.socket.feed(Message::Text(frame)).await?;
        }
        let frame = CloseFrame { code: status.code.into(), reason: status.reason.into() };
        self.socket.send(Message::Close(Some(frame))).await
    }

    /// Completes the closing handshake: answers the client's close frame, or waits for the client's answer to
    /// the gateway's close frame.
    async fn drain(&mut self) -> Result<(), Error> {
        while let Some(received) = self.socket.next().await {
            received?;
        }
        Ok(())
    }

    /// Reads and discards the rest of the input without parsing it.
    ///
    /// Closing a socket with unread input resets the TCP connection, and the client might lose the close frame.
    async fn drain_raw(&mut self) -> std::io::Result<()> {
        let stream = self.socket.get_mut();
        stream.shutdown().await?;
        let mut scratch = [0; READ_BUFFER_BYTES];
        while stream.read(&mut scratch).await? > 0 {}
        Ok(())
    }
}
