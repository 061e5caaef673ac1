//! Where connections and requests are kept: two ports, and their adapter on DynamoDB.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};

pub mod dynamodb;
mod error;

pub use error::{StoreError, StoreErrorKind};

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
    /// When it last gave a sign of life.
    pub last_ping: Timestamp,
    /// What is known of the client: `user_agent`, `source_ip`.
    pub metadata: BTreeMap<String, String>,
}

impl Connection {
    /// How long a connection is kept for: a gateway ends it after two hours, but may not tell us.
    pub const TTL: Duration = Duration::from_hours(24);
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

/// Where a request stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// Waiting to be claimed.
    Pending,
    /// Claimed, and run under a lease.
    Processing,
    /// Failed, and waiting for its next attempt.
    Retrying,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by its user or an operator.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Completed, Self::Failed, Self::Cancelled];

    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Processing => "PROCESSING",
            Self::Retrying => "RETRYING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// As an acknowledgment and a snapshot say it.
    #[must_use]
    pub const fn as_protocol(self) -> &'static str {
        match self {
            Self::Pending => "queued",
            Self::Processing => "processing",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far a request has come, as its handler last said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// From 0 to 100.
    pub percentage: f64,
    /// What is being done.
    pub message: String,
    /// What the handler tells about its work.
    pub metadata: Map<String, Value>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With the handler's output.
    Completed(Value),
    /// With what its client is told.
    Failed(ErrorBody),
}

impl Ending {
    /// The status that this ending leads to.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
        }
    }
}

/// A queued request, with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As its client names it.
    pub id: RequestId,
    /// Whose it is.
    pub user: UserId,
    /// In which tenant.
    pub tenant: TenantId,
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// What is asked for.
    pub action: String,
    /// What it is asked with.
    pub payload: Value,
    /// What its client wants to have kept with it.
    pub metadata: BTreeMap<String, String>,
    /// Where it stands.
    pub status: Status,
    /// How often it was claimed to be run; 0 before the first time.
    pub attempt: u32,
    /// How often it may be.
    pub max_attempts: u32,
    /// Raised by each claim: writes of an earlier one are refused.
    pub epoch: u64,
    /// Whose claim holds, and until when.
    pub lease: Option<Lease>,
    /// How far it has come.
    pub progress: Progress,
    /// The number of the last frame that was stored.
    pub seq: Seq,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
    /// The connections that are told of it.
    pub subscribers: Vec<ConnectionId>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Request {
    /// The key it is stored under.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::new(&self.tenant, &self.user, &self.id)
    }
}

/// The right to run a request, for a while, and to say how it went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Which claim this is.
    pub epoch: u64,
    /// Who holds it: 128 random bits, so that a claim whose answer was lost is known as our own.
    pub owner: String,
    /// Until when no one else may claim the request.
    pub expires_at: Timestamp,
}

/// What became of an attempt to queue a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    /// It is new, and queued.
    New,
    /// A request of the same user has this id: here it is, unchanged.
    Existing(Box<Request>),
}

/// What became of an attempt to claim a request.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours to run, under this lease.
    Won(Box<Request>, Lease),
    /// It is ours under this lease, and what is stored of it cannot be read.
    Unreadable(Lease, StoreError),
    /// It is not waiting to be claimed.
    NotPending(Status),
    /// There is no such request.
    Missing,
}

/// Who is to be told, as a write that the lease's holder made has found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audience {
    /// The connections that are told of the request.
    pub subscribers: Vec<ConnectionId>,
}

/// Where connections are kept.
pub trait ConnectionStore: Send + Sync {
    /// Keeps a new connection, or replaces one of the same id.
    ///
    /// # Errors
    /// When the store does not take it.
    fn save(&self, connection: &Connection) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The connection of this id, read consistently: what was saved before is seen.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no connection.
    fn get(&self, id: &ConnectionId) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;

    /// Forgets a connection and returns it; one that is not there is `None`.
    ///
    /// # Errors
    /// When the store does not answer, or held something that is no connection.
    fn delete(
        &self,
        id: &ConnectionId,
    ) -> impl Future<Output = Result<Option<Connection>, StoreError>> + Send;
}

/// Where requests wait, are claimed, and end.
///
/// Every write after a claim is conditional on the claim's epoch: once another claim has raised it,
/// the write fails with [`StoreErrorKind::Fenced`] and has changed nothing.
pub trait RequestQueue: Send + Sync {
    /// Queues a request, unless its user has one of the same id.
    ///
    /// # Errors
    /// When the store does not take it.
    fn enqueue(&self, request: &Request) -> impl Future<Output = Result<Enqueued, StoreError>> + Send;

    /// The request of this key, read consistently.
    ///
    /// # Errors
    /// When the store does not answer, or holds something that is no request.
    fn get(&self, key: &RequestKey) -> impl Future<Output = Result<Option<Request>, StoreError>> + Send;

    /// Claims a pending request until `lease_end`: raises its epoch and counts an attempt.
    ///
    /// # Errors
    /// When the store does not answer, or what it holds does not say where the request stands. Nothing is claimed then,
    /// as far as is known; a claim whose answer was lost is found again under the same `owner`.
    fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Stores how far the request has come, and prolongs the lease until `lease_end`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Fenced`] when the lease is lost; else when the store does not answer.
    fn progress(
        &self,
        key: &RequestKey,
        lease: &Lease,
        progress: &Progress,
        seq: Seq,
        lease_end: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request with a result; `seq` is that of its last frame.
    ///
    /// # Errors
    /// [`StoreErrorKind::Fenced`] when the lease is lost; else when the store does not take it.
    fn complete(
        &self,
        key: &RequestKey,
        lease: &Lease,
        result: &Value,
        seq: Seq,
        now: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Ends the request with an error; `seq` is that of its last frame.
    ///
    /// # Errors
    /// [`StoreErrorKind::Fenced`] when the lease is lost; else when the store does not take it.
    fn fail(
        &self,
        key: &RequestKey,
        lease: &Lease,
        error: &ErrorBody,
        seq: Seq,
        now: Timestamp,
    ) -> impl Future<Output = Result<Audience, StoreError>> + Send;

    /// Takes those that have the terminal frame off the list of who must be told. When that is `everyone`, and
    /// nobody has come to listen since, the request leaves the timer index as well.
    ///
    /// What a later epoch has taken over is left alone.
    ///
    /// # Errors
    /// When the store does not answer.
    fn delivered(
        &self,
        key: &RequestKey,
        lease: &Lease,
        told: &[ConnectionId],
        everyone: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
