//! Broadcasts: frames to one connection, to all connections of a user, or to all connections of a tenant.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Connections, SendError, SendErrorKind};
use crate::ids::{ConnectionId, TenantId, UserId};
use crate::ports::Clock;
use crate::protocol::MAX_FRAME_BYTES;
use crate::store::{Connection, ConnectionStore, PageRequest, StoreError, pages};
use crate::telemetry::Causes;

/// Settings of a [`Broadcast`].
#[derive(Clone, Debug)]
pub struct BroadcastSettings {
    /// Maximum number of connections to which a frame is sent concurrently; at least 1. Default 10.
    pub concurrency: usize,
    /// Timeout for one try to send a frame. A try that times out is not repeated, because the frame may have
    /// arrived. Default 3 s.
    pub send_timeout: Duration,
    /// Maximum number of tries while the gateway throttles or denies permission; at least 1. Default 3.
    pub tries: u32,
    /// Wait before the second try; the wait doubles before each later try. Default 250 ms.
    pub retry_after: Duration,
}

impl Default for BroadcastSettings {
    fn default() -> Self {
        Self {
            concurrency: 10,
            send_timeout: Duration::from_secs(3),
            tries: 3,
            retry_after: Duration::from_millis(250),
        }
    }
}

/// Sends frames to connections, independently of any request.
///
/// A broadcast reads the connections page by page while it sends, so a tenant may have any number of
/// connections. The methods return a stream of outcomes, and frames are sent only while the stream is polled.
/// If a connection turns out to be closed, the broadcast deletes the connection's record. No frame is sent to
/// a connection whose token has expired.
///
/// A frame can be any JSON value that the clients understand. See [`Frame`](crate::protocol::Frame) for the
/// frames of requests.
///
/// ```
/// use futures_util::StreamExt as _;
/// use serde_json::json;
/// use streamer::connections::{Broadcast, Connections, FrameTooLarge, Outcome, Tally};
/// use streamer::store::ConnectionStore;
///
/// /// Sends an announcement to all connections of a tenant, and returns how many received it.
/// async fn announce<C: ConnectionStore, P: Connections>(
///     broadcast: &Broadcast<C, P>,
/// ) -> Result<usize, FrameTooLarge> {
///     let frame = json!({"type": "announcement", "text": "We are back"});
///     let tally: Tally = broadcast.to_tenant(&"acme".into(), &frame)?.collect().await;
///     Ok(tally.sent)
/// }
///
/// /// Sends a reminder to all connections of one user, and prints each outcome.
/// async fn remind<C: ConnectionStore, P: Connections>(
///     broadcast: &Broadcast<C, P>,
/// ) -> Result<(), FrameTooLarge> {
///     let (tenant, user) = ("acme".into(), "ann".into());
///     let mut targets = broadcast.to_user(&tenant, &user, &json!({"type": "reminder"}))?;
///     while let Some(target) = targets.next().await {
///         match target {
///             Ok(target) if matches!(target.outcome, Outcome::Sent) => println!("sent to {}", target.connection),
///             Ok(target) => println!("{}: {:?}", target.connection, target.outcome),
///             Err(error) => println!("a connection could not be read: {error}"),
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Broadcast<C, P> {
    /// The store that holds the records of open connections.
    pub store: C,
    /// The port that sends frames to clients.
    pub connections: P,
    /// The clock that gives the current time.
    pub clock: Arc<dyn Clock>,
    /// Concurrency, timeout and retry settings of the broadcast.
    pub settings: BroadcastSettings,
}

/// One connection of a broadcast, with the outcome of the frame.
#[derive(Debug)]
pub struct Target {
    /// Id of the connection.
    pub connection: ConnectionId,
    /// Outcome of sending the frame to this connection.
    pub outcome: Outcome,
}

/// The outcome of sending a broadcast's frame to one connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The gateway accepted the frame.
    Sent,
    /// The connection is closed, or has no record in the store. An existing record was deleted, unless the
    /// store failed.
    Gone,
    /// The connection's token has expired, so no frame was sent.
    Expired,
    /// The send failed, or was not confirmed; see the error's kind.
    Failed(SendError),
}

/// Number of connections per outcome of a broadcast. The stream of outcomes can be collected into a `Tally`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Number of connections to which the frame was sent.
    pub sent: usize,
    /// Number of connections that turned out to be closed.
    pub gone: usize,
    /// Number of connections to which no frame was sent because their token had expired.
    pub expired: usize,
    /// Number of connections for which the send failed or was not confirmed.
    pub failed: usize,
    /// Number of store errors. Each error is a connection record that could not be read, or a page of the
    /// list of connections that could not be read. A missing page ends the broadcast.
    pub unread: usize,
    /// The latest of the store errors that [`unread`](Self::unread) counts; `None` if there was no error.
    pub last_error: Option<StoreError>,
}

impl Extend<Result<Target, StoreError>> for Tally {
    fn extend<I: IntoIterator<Item = Result<Target, StoreError>>>(&mut self, targets: I) {
        for target in targets {
            match target.map(|target| target.outcome) {
                Ok(Outcome::Sent) => self.sent += 1,
                Ok(Outcome::Gone) => self.gone += 1,
                Ok(Outcome::Expired) => self.expired += 1,
                Ok(Outcome::Failed(_)) => self.failed += 1,
                Err(error) => {
                    self.unread += 1;
                    self.last_error = Some(error);
                }
            }
        }
    }
}

/// The error for a frame that is larger than the 128 KiB that API Gateway carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameTooLarge {
    /// Size of the frame in bytes of JSON.
    pub bytes: usize,
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the frame has {} bytes; the gateway carries at most {MAX_FRAME_BYTES}", self.bytes)
    }
}

impl Error for FrameTooLarge {}

/// Reason why [`Broadcast::send`] did not try to send a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The frame is larger than API Gateway carries; make it smaller.
    TooLarge(FrameTooLarge),
    /// The connection's record could not be read; the error's kind says whether to retry.
    Store(StoreError),
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(error) => error.fmt(f),
            Self::Store(_) => f.write_str("the record of the connection could not be read"),
        }
    }
}

impl Error for BroadcastError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl<C: ConnectionStore, P: Connections> Broadcast<C, P> {
    /// Creates a broadcast with the default settings.
    #[must_use]
    pub fn new(store: C, connections: P, clock: Arc<dyn Clock>) -> Self {
        Self { store, connections, clock, settings: BroadcastSettings::default() }
    }

    /// Sends a frame to one connection, after reading the connection's record. A connection without a record is
    /// [`Gone`](Outcome::Gone).
    ///
    /// # Errors
    /// [`BroadcastError`] if the frame is larger than the gateway carries, or if the connection's record
    /// cannot be read.
    pub async fn send(&self, to: &ConnectionId, frame: &Value) -> Result<Outcome, BroadcastError> {
        let frame = text_of(frame).map_err(BroadcastError::TooLarge)?;
        match self.store.get(to).await.map_err(BroadcastError::Store)? {
            Some(connection) => Ok(self.send_with_retries(&connection, &frame).await),
            None => Ok(Outcome::Gone),
        }
    }

    /// Sends a frame to every connection of one user of a tenant, while the returned stream is polled.
    ///
    /// The stream yields one outcome per connection, in no particular order. A connection record that cannot be
    /// read is an error in the stream. If listing the connections fails, that error ends the stream.
    ///
    /// # Errors
    /// [`FrameTooLarge`] if the frame is larger than the gateway carries; no frame is sent.
    pub fn to_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
        frame: &Value,
    ) -> Result<impl Stream<Item = Result<Target, StoreError>> + Send + Unpin + use<'a, C, P>, FrameTooLarge>
    {
        let frame = text_of(frame)?;
        let list = move |page| self.store.list_by_user(tenant, user, page);
        Ok(self.to_all(pages(PageRequest::first(PageRequest::MAX_LIMIT), list), frame))
    }

    /// Sends a frame to every connection of a tenant, while the returned stream is polled. The stream yields
    /// the same outcomes and errors as the stream of [`to_user`](Self::to_user).
    ///
    /// # Errors
    /// [`FrameTooLarge`] if the frame is larger than the gateway carries; no frame is sent.
    pub fn to_tenant<'a>(
        &'a self,
        tenant: &'a TenantId,
        frame: &Value,
    ) -> Result<impl Stream<Item = Result<Target, StoreError>> + Send + Unpin + use<'a, C, P>, FrameTooLarge>
    {
        let frame = text_of(frame)?;
        let list = move |page| self.store.list_by_tenant(tenant, page);
        Ok(self.to_all(pages(PageRequest::first(PageRequest::MAX_LIMIT), list), frame))
    }

    fn to_all<'a>(
        &'a self,
        listed: impl Stream<Item = Result<Connection, StoreError>> + Send + 'a,
        frame: Arc<str>,
    ) -> impl Stream<Item = Result<Target, StoreError>> + Send + Unpin + 'a {
        let targets = listed.map(move |connection| {
            let frame = Arc::clone(&frame);
            async move {
                let connection = connection?;
                let outcome = self.send_with_retries(&connection, &frame).await;
                Ok(Target { connection: connection.id, outcome })
            }
        });
        Box::pin(targets.buffer_unordered(self.settings.concurrency.max(1)))
    }

    /// Sends the frame to one connection, with retries while the gateway throttles or denies permission.
    async fn send_with_retries(&self, connection: &Connection, frame: &str) -> Outcome {
        if connection.identity.expires_at <= self.clock.now() {
            return Outcome::Expired;
        }
        let BroadcastSettings { send_timeout, tries, retry_after, .. } = self.settings;
        let (id, mut wait, mut left) = (&connection.id, retry_after, tries.max(1));
        loop {
            left -= 1;
            let Ok(sent) = timeout(send_timeout, self.connections.send(id, frame)).await else {
                return Outcome::Failed(SendError::new(SendErrorKind::Unanswered));
            };
            let Err(error) = sent else { return Outcome::Sent };
            match error.kind() {
                SendErrorKind::Gone => {
                    self.delete_record(id).await;
                    return Outcome::Gone;
                }
                SendErrorKind::Unavailable if left > 0 => {
                    tracing::debug!(connection = %id, error = %Causes(&error), "frame not sent; retrying");
                    sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                SendErrorKind::Unavailable | SendErrorKind::Unanswered | SendErrorKind::Refused => {
                    tracing::warn!(connection = %id, error = %Causes(&error), "broadcast frame not sent");
                    return Outcome::Failed(error);
                }
            }
        }
    }

    /// Deletes the record of a closed connection, because the gateway may never send its `$disconnect` event.
    async fn delete_record(&self, id: &ConnectionId) {
        match self.store.delete(id).await {
            Ok(Some(_)) => tracing::info!(connection = %id, "connection closed; record deleted"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    connection = %id, error = %Causes(&error),
                    "connection closed; record could not be deleted"
                );
            }
        }
    }
}

fn text_of(frame: &Value) -> Result<Arc<str>, FrameTooLarge> {
    let text = frame.to_string();
    if text.len() > MAX_FRAME_BYTES {
        return Err(FrameTooLarge { bytes: text.len() });
    }
    Ok(text.into())
}
