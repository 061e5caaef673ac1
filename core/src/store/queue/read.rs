use std::future::Future;

use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::store::error::StoreError;
use crate::store::page::{Page, PageRequest};
use crate::store::request::{Request, RequestSummary, Status};

/// Reads of requests, singly and as lists.
///
/// Lists come from eventually consistent indexes, so a request that was written a moment ago may be missing. Each
/// listed request itself is read consistently, and a request that no longer belongs to the list is left out.
pub trait ReadRequests: Send + Sync {
    /// Returns the request of this key, or `None` if it does not exist. The read is strongly consistent.
    ///
    /// # Errors
    /// If the store does not respond, or if the stored item is not a valid request.
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

    /// Lists the requests that arrived over a connection, open and terminal ones, the newest first.
    ///
    /// # Errors
    /// If the store does not respond; [`Misuse`](crate::store::StoreErrorKind::Misuse) if `page` is invalid for this
    /// list.
    fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// Lists the requests that have this status, the oldest first.
    ///
    /// # Errors
    /// If the store does not respond; [`Misuse`](crate::store::StoreErrorKind::Misuse) if `page` is invalid for this
    /// list.
    fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// Lists the requests that are due at `now`, those with the earliest due time first.
    ///
    /// # Errors
    /// If the store does not respond; [`Misuse`](crate::store::StoreErrorKind::Misuse) if `page` is invalid for this
    /// list.
    fn due(
        &self,
        now: Timestamp,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;
}
