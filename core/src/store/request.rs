use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, Seq};

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

    /// Whether a request that stands so has ended, and will never stand otherwise.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Processing | Self::Retrying => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }

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
    /// Because its user or an operator wanted it to.
    Cancelled,
}

impl Ending {
    /// The status that this ending leads to.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled => Status::Cancelled,
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

/// A request as a list shows it: without what was sent with it, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSummary {
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
    /// Whether its user or an operator wants it to end, and its handler goes on.
    pub cancel_requested: bool,
    /// Why its last attempt failed, if another was left.
    pub last_error: Option<ErrorBody>,
    /// How far it has come.
    pub progress: Progress,
    /// The number of the last frame that was stored.
    pub seq: Seq,
    /// The connections that are told of it.
    pub subscribers: Vec<ConnectionId>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When somebody has to look at it, unless nothing is left to do.
    pub timer_at: Option<Timestamp>,
}

impl RequestSummary {
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
