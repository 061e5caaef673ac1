use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use super::{Page, PageRequest, StoreError};
use crate::ids::{ConnectionId, TenantId, UserId};
use crate::ports::Timestamp;

/// An open WebSocket connection, and the identity that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// The connection's id, as assigned by API Gateway.
    pub id: ConnectionId,
    /// The authenticated user of the connection, with the user's tenant and permissions.
    pub identity: Identity,
    /// URL of the gateway's management API for the connection, such as `https://{api}/{stage}`.
    pub endpoint: String,
    /// Time at which the connection was opened.
    pub connected_at: Timestamp,
    /// Time of the client's last activity on the connection: its opening, or a message from the client.
    pub last_ping: Timestamp,
    /// Properties of the client, such as `user_agent` and `source_ip`.
    pub metadata: BTreeMap<String, String>,
}

impl Connection {
    /// Time from the opening of a connection until DynamoDB may delete its item: 24 hours.
    ///
    /// API Gateway ends a connection after two hours, but its `$disconnect` event may be lost, so that the item needs
    /// a separate expiry.
    pub const TTL: Duration = Duration::from_hours(24);

    /// Time since the last activity after which a connection certainly no longer exists: 130 minutes.
    ///
    /// API Gateway ends every connection after two hours. A client that only receives frames may send nothing in all
    /// that time, so a shorter limit would delete connections that are still open. The extra ten minutes cover clock
    /// differences and a slow `$connect`.
    pub const STALE_AFTER: Duration = Duration::from_mins(130);
}

/// An authenticated user with tenant and permissions.
///
/// The values come from a verified token only, never from a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The user's id, unique within the tenant.
    pub user: UserId,
    /// The id of the user's tenant.
    pub tenant: TenantId,
    /// The permissions that the token grants.
    pub permissions: Vec<String>,
    /// Time at which the token expires; from then on the connection has no rights.
    pub expires_at: Timestamp,
}

/// Stores and lists open connections.
pub trait ConnectionStore: Send + Sync {
    /// Stores a connection. Replaces a stored connection that has the same id and the same user.
    ///
    /// # Errors
    /// [`AlreadyExists`](super::StoreErrorKind::AlreadyExists) if a connection of a different user has the same id; a
    /// different kind if the write fails.
    fn save(&self, connection: &Connection) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the connection of this id, or `None` if it does not exist. The read is strongly consistent.
    ///
    /// # Errors
    /// [`StoreError`] if the read fails; of the kind [`Corrupt`](super::StoreErrorKind::Corrupt) if the stored item
    /// is not a valid connection.
    fn get(&self, id: &ConnectionId) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;

    /// Deletes a connection and returns it.
    ///
    /// Returns `None` if the connection does not exist. Also returns `None` if the response of a successful delete
    /// was lost and the SDK has retried the call.
    ///
    /// # Errors
    /// [`StoreError`] if the delete fails; of the kind [`Corrupt`](super::StoreErrorKind::Corrupt) if the deleted
    /// item was not a valid connection.
    fn delete(
        &self,
        id: &ConnectionId,
    ) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;

    /// Lists a user's connections, the oldest first.
    ///
    /// The index is eventually consistent: a connection that was saved a moment ago may be missing. The listed
    /// connections themselves are read consistently.
    ///
    /// # Errors
    /// [`StoreError`] if the read fails; of the kind [`Misuse`](super::StoreErrorKind::Misuse) if the limit of `page`
    /// is out of range, or its cursor belongs to a different list.
    fn list_by_user(
        &self,
        tenant: &TenantId,
        user: &UserId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Connection>, StoreError>> + Send;

    /// Lists a tenant's connections, the oldest first, with the same consistency as
    /// [`list_by_user`](Self::list_by_user).
    ///
    /// # Errors
    /// [`StoreError`] if the read fails; of the kind [`Misuse`](super::StoreErrorKind::Misuse) if the limit of `page`
    /// is out of range, or its cursor belongs to a different list.
    fn list_by_tenant(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Connection>, StoreError>> + Send;

    /// Sets the connection's last-activity time to `now`.
    ///
    /// Never sets an earlier time than the stored one, and never recreates a deleted connection.
    ///
    /// # Errors
    /// [`NotFound`](super::StoreErrorKind::NotFound) if the connection does not exist; a different kind if the write
    /// fails.
    fn update_last_ping(
        &self,
        id: &ConnectionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes the connections whose last activity was before `last_ping_before`, and returns their count.
    ///
    /// Scans the whole table. Pass the current time minus [`STALE_AFTER`](Connection::STALE_AFTER): a later time
    /// deletes open connections whose clients only receive frames. A connection with new activity during the scan is
    /// kept. A delete that the SDK retried because its response was lost is not counted.
    ///
    /// # Errors
    /// [`StoreError`] if the scan or a delete fails. Connections deleted before the error remain deleted.
    fn delete_stale(
        &self,
        last_ping_before: Timestamp,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
}
