use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use super::{Page, PageRequest, StoreError};
use crate::ids::{ConnectionId, TenantId, UserId};
use crate::ports::Timestamp;

/// An open WebSocket connection, and whom it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// As the gateway names it.
    pub id: ConnectionId,
    /// Whom its requests run for.
    pub identity: Identity,
    /// Where the gateway's management API answers for it, such as `https://{api}/{stage}`.
    pub endpoint: String,
    /// When it was opened.
    pub connected_at: Timestamp,
    /// When it last gave a sign of life: opened, or sent a message.
    pub last_ping: Timestamp,
    /// What is known of the client: `user_agent`, `source_ip`.
    pub metadata: BTreeMap<String, String>,
}

impl Connection {
    /// How long a connection is kept for: a gateway ends it after two hours, but may not tell us.
    pub const TTL: Duration = Duration::from_hours(24);

    /// How long after its last sign of life a connection is surely gone.
    ///
    /// A gateway ends a connection after two hours, whatever goes over it, and a client that only listens sends
    /// nothing meanwhile: anything shorter would take the living for dead. The ten minutes on top are for clocks that
    /// differ, and for a `$connect` that took its time.
    pub const STALE_AFTER: Duration = Duration::from_mins(130);
}

/// Who somebody is, and what they may do. It comes from a verified token alone, never from a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The user, unique within the tenant.
    pub user: UserId,
    /// The tenant.
    pub tenant: TenantId,
    /// What the token permits.
    pub permissions: Vec<String>,
    /// When the token ends, and the connection's rights with it.
    pub expires_at: Timestamp,
}

/// Where connections are kept.
pub trait ConnectionStore: Send + Sync {
    /// Keeps a new connection, or replaces the same user's of the same id.
    ///
    /// # Errors
    /// [`AlreadyExists`](super::StoreErrorKind::AlreadyExists) when another user's connection has the id; else when
    /// the store does not take it.
    fn save(&self, connection: &Connection) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The connection of this id, read consistently: what was saved before is seen.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no connection.
    fn get(&self, id: &ConnectionId) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;

    /// Forgets a connection and returns it; `None` when it is not there, be it that an earlier try has forgotten it
    /// whose answer was lost.
    ///
    /// # Errors
    /// When the store does not answer, or held something that is no connection.
    fn delete(
        &self,
        id: &ConnectionId,
    ) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;

    /// The connections of a user of a tenant, the longest open first.
    ///
    /// One that was saved a moment ago may not be listed yet; what is listed is as it stands.
    ///
    /// # Errors
    /// When the store does not answer, or `page` is none that it can turn to.
    fn list_by_user(
        &self,
        tenant: &TenantId,
        user: &UserId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Connection>, StoreError>> + Send;

    /// The connections of a tenant, the longest open first; as [`list_by_user`](Self::list_by_user).
    ///
    /// # Errors
    /// When the store does not answer, or `page` is none that it can turn to.
    fn list_by_tenant(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Connection>, StoreError>> + Send;

    /// Notes a sign of life. It never moves back in time, and never brings back a connection that is forgotten.
    ///
    /// # Errors
    /// [`NotFound`](super::StoreErrorKind::NotFound) when there is no such connection (any more); else when the store
    /// does not answer.
    fn update_last_ping(
        &self,
        id: &ConnectionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets the connections whose last sign of life is older than `last_ping_before`, and says how many there were,
    /// but for those whose answer was lost.
    ///
    /// It reads the whole table. The moment to name is [`STALE_AFTER`](Connection::STALE_AFTER) ago: a later one
    /// forgets clients that listen in silence. One that gives a sign of life meanwhile is kept.
    ///
    /// # Errors
    /// When the store does not answer; what is forgotten by then stays so.
    fn delete_stale(
        &self,
        last_ping_before: Timestamp,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
}
