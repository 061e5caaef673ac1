use std::future::Future;

use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::store::error::StoreError;
use crate::store::page::{Page, PageRequest};
use crate::store::request::{Request, RequestSummary, Status};

/// Reads of single requests and of lists of requests.
///
/// Lists come from eventually consistent indexes, so a request that was written a moment ago may be missing. Each
/// listed request itself is read consistently, and a request that no longer belongs to the list is left out.
pub trait ReadRequests: Send + Sync {
    /// Returns the request of this key, or `None` if it does not exist. The read is strongly consistent.
    ///
    /// # Errors
    /// [`StoreError`] if the read fails; of the kind [`Corrupt`](crate::store::StoreErrorKind::Corrupt) if the stored
    /// item is not a valid request.
    fn get(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send;

    /// Returns the request of this key with the values that its client may query, or `None` if the request does not
    /// exist.
    ///
    /// The read is strongly consistent. A large payload or checkpoint may be left out: the payload is then null, and
    /// the checkpoint `None`.
    ///
    /// # Errors
    /// The same errors as [`get`](Self::get).
    fn snapshot(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send {
        self.get(key)
    }

    /// Lists the open and terminal requests that arrived over a connection, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] if a read fails; of the kind [`Misuse`](crate::store::StoreErrorKind::Misuse) if the limit of
    /// `page` is out of range, or its cursor belongs to a different list.
    fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// Lists the requests that have this status, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if a read fails; of the kind [`Misuse`](crate::store::StoreErrorKind::Misuse) if the limit of
    /// `page` is out of range, or its cursor belongs to a different list.
    fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// Lists the requests that are due at `now`, those with the earliest due time first.
    ///
    /// # Errors
    /// [`StoreError`] if a read fails; of the kind [`Misuse`](crate::store::StoreErrorKind::Misuse) if the limit of
    /// `page` is out of range, or its cursor belongs to a different list.
    fn due(
        &self,
        now: Timestamp,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;
}
