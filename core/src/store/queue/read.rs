use std::future::Future;

use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::store::error::StoreError;
use crate::store::page::{Page, PageRequest};
use crate::store::request::{Request, RequestSummary, Status};

/// How requests are read, one by one and as lists.
///
/// Lists are read from indexes, which lag a little behind: a request that was written a moment ago may not be listed
/// yet. Each entry is read consistently, and an entry that no longer belongs to the list is left out.
pub trait ReadRequests: Send + Sync {
    /// The request of this key, read consistently.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no request.
    fn get(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send;

    /// The request of this key, read consistently, as far as its client may ask about it. A payload or a checkpoint that
    /// is costly to read may be missing from it: null and `None`.
    ///
    /// # Errors
    /// The same as those of [`get`](Self::get).
    fn snapshot(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send {
        self.get(key)
    }

    /// The requests that came over a connection, the newest first: those that are open are among them.
    ///
    /// # Errors
    /// When the store does not answer, or cannot turn to `page`.
    fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// The requests of this status, the oldest first.
    ///
    /// # Errors
    /// When the store does not answer, or cannot turn to `page`.
    fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;

    /// The requests whose timer has fired by `now`, the longest due first.
    ///
    /// # Errors
    /// When the store does not answer, or cannot turn to `page`.
    fn due(
        &self,
        now: Timestamp,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<RequestSummary>, StoreError>> + Send;
}
