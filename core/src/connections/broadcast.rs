//! Frames to whoever is connected: to one connection, to all of a user, or to all of a tenant.

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

/// How frames are sent to many.
#[derive(Clone, Debug)]
pub struct BroadcastSettings {
    /// To how many connections at once, at least 1. Default 10.
    pub concurrency: usize,
    /// How long one try may take. One that takes longer is not made again, since it may have arrived. Default 3 s.
    pub send_timeout: Duration,
    /// How often a frame is tried that the gateway does not take for now, at least once. Default 3.
    pub tries: u32,
    /// The wait before the second try, doubled for each that follows. Default 250 ms.
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

/// Sends frames to whoever is connected, whether or not they have asked for anything.
///
/// Connections are read page by page while frames are sent, so that a tenant may have any number of them: outcomes come as
/// a stream, and nothing is sent that is not asked of it. A connection that turns out to be gone is forgotten. One whose
/// token has expired has no rights any more, and is sent nothing.
///
/// Each frame is JSON text as it is given, and its clients have to know it: see [`Frame`](crate::protocol::Frame) for
/// those of requests.
///
/// ```
/// use futures_util::StreamExt as _;
/// use serde_json::json;
/// use streamer::connections::{Broadcast, Connections, FrameTooLarge, Outcome, Tally};
/// use streamer::store::ConnectionStore;
///
/// /// Tells everybody of a tenant, and says how many it has reached.
/// async fn announce<C: ConnectionStore, P: Connections>(
///     broadcast: &Broadcast<C, P>,
/// ) -> Result<usize, FrameTooLarge> {
///     let frame = json!({"type": "announcement", "text": "We are back"});
///     let tally: Tally = broadcast.to_tenant(&"acme".into(), &frame)?.collect().await;
///     Ok(tally.sent)
/// }
///
/// /// Tells one user, wherever they are connected, and how it went with each.
/// async fn remind<C: ConnectionStore, P: Connections>(
///     broadcast: &Broadcast<C, P>,
/// ) -> Result<(), FrameTooLarge> {
///     let (tenant, user) = ("acme".into(), "ann".into());
///     let mut targets = broadcast.to_user(&tenant, &user, &json!({"type": "reminder"}))?;
///     while let Some(target) = targets.next().await {
///         match target {
///             Ok(target) if matches!(target.outcome, Outcome::Sent) => println!("{} has it", target.connection),
///             Ok(target) => println!("{}: {:?}", target.connection, target.outcome),
///             Err(error) => println!("not all could be listed: {error}"),
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Broadcast<C, P> {
    /// Where it is known who is connected.
    pub store: C,
    /// The way to them.
    pub connections: P,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How it is done.
    pub settings: BroadcastSettings,
}

/// A connection that a frame was for, and what became of that.
#[derive(Debug)]
pub struct Target {
    /// The connection.
    pub connection: ConnectionId,
    /// What became of the frame.
    pub outcome: Outcome,
}

/// What became of a frame for one connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The gateway has taken it.
    Sent,
    /// The connection is closed; its record is gone too.
    Gone,
    /// Its token has expired: it was sent nothing.
    Expired,
    /// It was not sent, as far as is known.
    Failed(SendError),
}

/// How many connections came to which outcome: what a stream of outcomes is collected into.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Those that were sent the frame.
    pub sent: usize,
    /// Those that turned out to be closed.
    pub gone: usize,
    /// Those whose token has expired.
    pub expired: usize,
    /// Those that it could not be sent to.
    pub failed: usize,
    /// Records that could not be read, and lists that ended before their end.
    pub unread: usize,
    /// The last error of those that [could not be read](Self::unread).
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

/// A frame that the gateway would not carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameTooLarge {
    /// How large it is.
    pub bytes: usize,
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the frame has {} bytes; the gateway carries at most {MAX_FRAME_BYTES}", self.bytes)
    }
}

impl Error for FrameTooLarge {}

/// Why a frame was not sent to a connection, and nothing was tried.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotTried {
    /// No gateway would carry it: make it smaller.
    TooLarge(FrameTooLarge),
    /// It could not be read whose the connection is: the error's kind says whether to come again.
    Store(StoreError),
}

impl fmt::Display for NotTried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(error) => error.fmt(f),
            Self::Store(_) => f.write_str("it could not be read whose the connection is"),
        }
    }
}

impl Error for NotTried {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl<C: ConnectionStore, P: Connections> Broadcast<C, P> {
    /// A broadcast with the default settings.
    #[must_use]
    pub fn new(store: C, connections: P, clock: Arc<dyn Clock>) -> Self {
        Self { store, connections, clock, settings: BroadcastSettings::default() }
    }

    /// Sends a frame to one connection, whose record is read first: one that is not known is gone.
    ///
    /// # Errors
    /// When the frame is too large, or the record cannot be read.
    pub async fn send(&self, to: &ConnectionId, frame: &Value) -> Result<Outcome, NotTried> {
        let frame = text_of(frame).map_err(NotTried::TooLarge)?;
        match self.store.get(to).await.map_err(NotTried::Store)? {
            Some(connection) => Ok(self.reach(&connection, &frame).await),
            None => Ok(Outcome::Gone),
        }
    }

    /// Sends a frame to every connection of a user of a tenant, as the stream is read: each is an outcome, in no order. A
    /// connection whose record cannot be read is an error among them; when the list itself fails, that is the last.
    ///
    /// # Errors
    /// When the frame is too large: nobody is sent anything.
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

    /// Sends a frame to every connection of a tenant; as [`to_user`](Self::to_user).
    ///
    /// # Errors
    /// When the frame is too large: nobody is sent anything.
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
                let outcome = self.reach(&connection, &frame).await;
                Ok(Target { connection: connection.id, outcome })
            }
        });
        Box::pin(targets.buffer_unordered(self.settings.concurrency.max(1)))
    }

    async fn reach(&self, connection: &Connection, frame: &str) -> Outcome {
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
                    self.forget(id).await;
                    return Outcome::Gone;
                }
                SendErrorKind::Unavailable if left > 0 => {
                    tracing::debug!(connection = %id, error = %Causes(&error), "not sent yet");
                    sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                SendErrorKind::Unavailable | SendErrorKind::Unanswered | SendErrorKind::Refused => {
                    tracing::warn!(connection = %id, error = %Causes(&error), "not sent");
                    return Outcome::Failed(error);
                }
            }
        }
    }

    /// Deletes the record of a connection that is closed: its `$disconnect` may never come.
    async fn forget(&self, id: &ConnectionId) {
        match self.store.delete(id).await {
            Ok(Some(_)) => tracing::info!(connection = %id, "it was closed, and is forgotten"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(connection = %id, error = %Causes(&error), "it was closed, and is not forgotten yet");
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
