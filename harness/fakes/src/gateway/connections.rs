//! The open connections of the gateway, keyed by connection id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streamer::ports::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::event::ConnectionInfo;
use super::ids::ConnectionId;

/// Handle of one open connection, shared by the socket's task, the tasks of its messages, and the management
/// API.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    /// Notified once, when `DELETE @connections` asks to close the socket.
    pub(super) deleted: Notify,
    last_active: AtomicU64,
    frames: mpsc::Sender<Utf8Bytes>,
}

impl Connection {
    /// Returns a handle, and the receiver of the handle's queue. The queue holds up to `frames_waiting`
    /// frames that the socket has not sent yet.
    pub(super) fn new(info: ConnectionInfo, frames_waiting: usize) -> (Arc<Self>, mpsc::Receiver<Utf8Bytes>) {
        let (frames, queue) = mpsc::channel(frames_waiting);
        let last_active = AtomicU64::new(info.connected_at.as_millis());
        (Arc::new(Self { info, deleted: Notify::new(), last_active, frames }), queue)
    }

    pub(super) fn id(&self) -> &ConnectionId {
        &self.info.connection_id
    }

    /// Queues `frame` for the client, waiting while the queue is full.
    ///
    /// # Errors
    /// [`Gone`] if the connection's socket has closed.
    pub(super) async fn send(&self, frame: Utf8Bytes) -> Result<(), Gone> {
        self.frames.send(frame).await.map_err(|_| Gone)
    }

    pub(super) fn touch(&self, now: Timestamp) {
        self.last_active.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    pub(super) fn last_active(&self) -> Timestamp {
        Timestamp::from_millis(self.last_active.load(Ordering::Relaxed))
    }
}

/// Error of sending a frame to a connection whose socket has closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Gone;

/// All open connections, keyed by connection id.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<ConnectionId, Arc<Connection>>>);

impl Connections {
    pub(super) fn insert(&self, connection: Arc<Connection>) {
        self.lock().insert(connection.id().clone(), connection);
    }

    pub(super) fn find(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn remove(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.lock().remove(id)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Locks the map and ignores poisoning: each use of the map is a single operation, so a panic cannot
    /// leave the map inconsistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
