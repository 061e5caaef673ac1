//! The connections that are open, as the management API sees them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streamer::ports::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::event::ConnectionInfo;
use super::ids::ConnectionId;

/// One open connection: a handle that its socket's task, its messages' tasks and the management API share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    /// Told once, when `DELETE @connections` wants the socket closed.
    pub(super) deleted: Notify,
    last_active: AtomicU64,
    frames: mpsc::Sender<Utf8Bytes>,
}

impl Connection {
    /// A handle, and the queue of frames that its socket must send, in which `frames_waiting` find room.
    pub(super) fn new(info: ConnectionInfo, frames_waiting: usize) -> (Arc<Self>, mpsc::Receiver<Utf8Bytes>) {
        let (frames, queue) = mpsc::channel(frames_waiting);
        let last_active = AtomicU64::new(info.connected_at.as_millis());
        (Arc::new(Self { info, deleted: Notify::new(), last_active, frames }), queue)
    }

    pub(super) fn id(&self) -> &ConnectionId {
        &self.info.connection_id
    }

    /// Waits for room in the queue and puts `frame` there.
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

/// The connection's socket has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Gone;

/// Every open connection by its id.
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

    /// The map is whole between any two statements here, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
