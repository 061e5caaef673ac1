use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode, Seq};

/// Status of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// The request waits for a processor or worker to claim it.
    Pending,
    /// A function has claimed the request and runs it under a lease.
    Processing,
    /// An attempt failed, and the request waits for its next attempt.
    Retrying,
    /// The request finished with a result. Terminal.
    Completed,
    /// The request finished with an error. Terminal.
    Failed,
    /// The request's user or an operator cancelled the request. Terminal.
    Cancelled,
}

impl Status {
    /// All statuses of a request.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Completed, Self::Failed, Self::Cancelled];

    /// Returns whether this status is terminal: COMPLETED, FAILED or CANCELLED. A terminal status never changes.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Processing | Self::Retrying => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }

    /// Returns the status as stored in DynamoDB, such as `PENDING`.
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

    /// Returns the status as clients receive it in acknowledgments and snapshots, such as `queued`.
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

/// Progress of a request, as last reported by its handler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Completed share of the work, from 0 to 100.
    pub percentage: f64,
    /// Description of the current step of the work.
    pub message: String,
    /// Additional values that the handler reports to clients with its progress.
    pub metadata: Map<String, Value>,
}

/// The function that runs a request.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Runner {
    /// The processor runs the request together with the other requests of its batch. Used for requests that are
    /// expected to finish soon.
    #[default]
    Processor,
    /// The worker runs the request alone in its own invocation. Used for long requests, for requests that continue
    /// from a checkpoint, and for requests whose process crashed.
    Worker,
}

/// A failed attempt, as recorded in the history of its request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PastAttempt {
    /// Ordinal of the attempt, starting at 1.
    pub attempt: u32,
    /// Epoch of the claim under which the attempt ended.
    pub epoch: u64,
    /// Time of the attempt's last claim; `None` if not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Time at which the attempt ended, or at which the sweeper found its lease expired.
    pub ended_at: Timestamp,
    /// Kind of the attempt's failure.
    pub outcome: AttemptOutcome,
    /// Error of the attempt in the form for clients, truncated to [`MAX_MESSAGE_CHARS`](Self::MAX_MESSAGE_CHARS) and
    /// [`MAX_CODE_CHARS`](Self::MAX_CODE_CHARS), and without details.
    pub error: ErrorBody,
}

impl PastAttempt {
    /// Maximum number of attempts in a history; the oldest attempts are dropped. The number is bounded because every
    /// write of the request consumes write capacity for the whole history.
    pub const MAX: usize = 10;
    /// Number of characters to which a history truncates an error's message.
    pub const MAX_MESSAGE_CHARS: usize = 120;
    /// Number of characters to which a history truncates an error's code.
    pub const MAX_CODE_CHARS: usize = 64;

    /// Appends this attempt to `history` and returns the new history, with at most [`MAX`](Self::MAX) attempts.
    #[must_use]
    pub fn added_to(mut self, history: &[Self]) -> Vec<Self> {
        let message: String = self.error.message.chars().take(Self::MAX_MESSAGE_CHARS).collect();
        let code: String = self.error.code.as_str().chars().take(Self::MAX_CODE_CHARS).collect();
        self.error = ErrorBody::new(ErrorCode::from(code.as_str()), message);
        let kept = history.len().saturating_sub(Self::MAX - 1);
        history[kept..].iter().cloned().chain([self]).collect()
    }
}

/// Kind of failure of an attempt.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler or a middleware layer returned an error.
    Failed,
    /// The attempt exceeded its time limit.
    TimedOut,
    /// The handler or a middleware layer panicked.
    Panicked,
    /// The attempt's lease expired without an outcome, because its process died or could not reach the store.
    Crashed,
}

/// Final progress of an attempt.
///
/// Each write that releases the attempt's lease includes this report, so that stored progress is not behind the
/// progress that was pushed to clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastReport {
    /// Last progress that the attempt reported.
    pub progress: Progress,
    /// Sequence number of the attempt's last frame. In a terminal write, the sequence number of the terminal frame.
    pub seq: Seq,
    /// Time of the write that includes this report, which is the last write of the attempt.
    pub at: Timestamp,
}

/// Terminal outcome of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The request completed with this output of its handler.
    Completed(Value),
    /// The request failed with this error, which clients receive.
    Failed(ErrorBody),
    /// The request's user or an operator cancelled the request.
    Cancelled,
}

impl Ending {
    /// Returns the terminal status that belongs to this ending.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }
}

/// A queued request with all its stored values.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The request's id, as chosen by its client.
    pub id: RequestId,
    /// The user who sent the request.
    pub user: UserId,
    /// The tenant of the request's user.
    pub tenant: TenantId,
    /// The connection over which the request arrived.
    pub connection: ConnectionId,
    /// Name of the requested action, which selects the handler.
    pub action: String,
    /// Input of the handler, as sent by the client.
    pub payload: Value,
    /// Key-value pairs that the client attached to the request.
    pub metadata: BTreeMap<String, String>,
    /// Current status of the request.
    pub status: Status,
    /// Number of attempts started so far; 0 before the first claim. A continuation does not count as an attempt.
    pub attempt: u32,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Number of times that the request continued from a checkpoint in a new invocation.
    pub continuations: u32,
    /// Function that runs the request: the processor or the worker.
    pub runner: Runner,
    /// Counter that each claim of the request raises by one. Writes under an earlier epoch are refused.
    pub epoch: u64,
    /// Lease of the current claim; `None` unless the request is being processed.
    pub lease: Option<Lease>,
    /// Whether a user or operator has asked to cancel the request while its attempt is still running.
    pub cancel_requested: bool,
    /// Last stored progress of the request.
    pub progress: Progress,
    /// Sequence number of the last progress or terminal frame that is recorded for the request.
    pub seq: Seq,
    /// Last state that the handler saved to continue from; `None` if the handler has saved none.
    pub checkpoint: Option<Value>,
    /// Failed attempts of the request, the latest last. A request that a redrive created also has the failed attempts
    /// of the original request.
    pub history: Vec<PastAttempt>,
    /// Terminal outcome of the request; `None` while the request is open.
    pub ending: Option<Ending>,
    /// True if the request has failed and its dead letter still has to be sent.
    pub is_dead_letter_due: bool,
    /// Id of the [dead letter](crate::dead_letters::DeadLetter) from which the request was created; `None` unless the
    /// request is a redrive.
    pub redrive_of: Option<String>,
    /// Id of the request that a redrive created from this request's dead letter; `None` if there was no redrive.
    pub redriven_as: Option<RequestId>,
    /// Connections that receive the request's frames.
    pub subscribers: Vec<ConnectionId>,
    /// Time at which the request was queued.
    pub created_at: Timestamp,
    /// Time of the request's last claim; `None` before the first claim.
    pub started_at: Option<Timestamp>,
    /// Time of the write that made the request terminal; `None` while the request is open.
    pub finished_at: Option<Timestamp>,
}

impl Request {
    /// Creates a pending request with no attempts so far, at most one attempt, no metadata, and `connection` as its
    /// only subscriber.
    #[must_use]
    pub fn new(
        id: RequestId,
        user: UserId,
        tenant: TenantId,
        connection: ConnectionId,
        action: impl Into<String>,
        payload: Value,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            user,
            tenant,
            connection: connection.clone(),
            action: action.into(),
            payload,
            metadata: BTreeMap::new(),
            status: Status::Pending,
            attempt: 0,
            max_attempts: 1,
            continuations: 0,
            runner: Runner::Processor,
            epoch: 0,
            lease: None,
            cancel_requested: false,
            progress: Progress::default(),
            seq: Seq::default(),
            checkpoint: None,
            history: Vec::new(),
            ending: None,
            is_dead_letter_due: false,
            redrive_of: None,
            redriven_as: None,
            subscribers: vec![connection],
            created_at,
            started_at: None,
            finished_at: None,
        }
    }

    /// Returns the key under which the request is stored.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::new(&self.tenant, &self.user, &self.id)
    }
}

/// A request as an entry of a list: without payload, metadata, checkpoint, result, error and redrive links.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSummary {
    /// The request's id, as chosen by its client.
    pub id: RequestId,
    /// The user who sent the request.
    pub user: UserId,
    /// The tenant of the request's user.
    pub tenant: TenantId,
    /// The connection over which the request arrived.
    pub connection: ConnectionId,
    /// Name of the requested action, which selects the handler.
    pub action: String,
    /// Current status of the request.
    pub status: Status,
    /// Number of attempts started so far; 0 before the first claim. A continuation does not count as an attempt.
    pub attempt: u32,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Number of times that the request continued from a checkpoint in a new invocation.
    pub continuations: u32,
    /// Function that runs the request: the processor or the worker.
    pub runner: Runner,
    /// Counter that each claim of the request raises by one. Writes under an earlier epoch are refused.
    pub epoch: u64,
    /// Lease of the current claim; `None` unless the request is being processed.
    pub lease: Option<Lease>,
    /// Whether a user or operator has asked to cancel the request while its attempt is still running.
    pub cancel_requested: bool,
    /// Failed attempts of the request, the latest last.
    pub history: Vec<PastAttempt>,
    /// True if the request has failed and its dead letter still has to be sent.
    pub is_dead_letter_due: bool,
    /// Last stored progress of the request.
    pub progress: Progress,
    /// Sequence number of the last progress or terminal frame that is recorded for the request.
    pub seq: Seq,
    /// Connections that receive the request's frames.
    pub subscribers: Vec<ConnectionId>,
    /// Time at which the request was queued.
    pub created_at: Timestamp,
    /// Time of the request's last claim; `None` before the first claim.
    pub started_at: Option<Timestamp>,
    /// Time of the write that made the request terminal; `None` while the request is open.
    pub finished_at: Option<Timestamp>,
    /// Time at which the sweeper must handle the request; `None` if no work is left for the sweeper.
    pub timer_at: Option<Timestamp>,
}

impl RequestSummary {
    /// Returns the key under which the request is stored.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::new(&self.tenant, &self.user, &self.id)
    }
}

/// The exclusive right to run a request, and to write its outcome, until an expiry time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Epoch of the claim that acquired the lease.
    pub epoch: u64,
    /// Owner token of the lease: 128 random bits, fresh for each claim. By this token a claimant recognizes its own
    /// successful claim after the response was lost.
    pub owner: String,
    /// Time at which the lease expires, unless renewed. Afterwards the sweeper may reclaim the request.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(attempt: u32, error: ErrorBody) -> PastAttempt {
        PastAttempt {
            attempt,
            epoch: attempt.into(),
            started_at: None,
            ended_at: Timestamp::default(),
            outcome: AttemptOutcome::Failed,
            error,
        }
    }

    #[test]
    fn history_keeps_the_latest_ten_attempts_and_truncates_their_errors() {
        let mut history = Vec::new();
        for attempt in 1..=25 {
            let error = ErrorBody::new(ErrorCode::from("C".repeat(900).as_str()), "\u{e4}".repeat(9_000))
                .with_detail("rows", 7);
            history = past(attempt, error).added_to(&history);
            assert_eq!(history.len(), PastAttempt::MAX.min(attempt as usize));
            assert_eq!(history.last().map(|past| past.attempt), Some(attempt));
        }
        assert_eq!(history[0].attempt, 16);
        let kept = ErrorBody::new(ErrorCode::from("C".repeat(64).as_str()), "\u{e4}".repeat(120));
        assert!(history.iter().all(|past| past.error == kept));
        let bytes = serde_json::to_string(&history).unwrap().len();
        assert!(bytes < 5 * 1024, "a full history takes less than 5 KiB; this history takes {bytes} bytes");
        // A history that is already longer than the maximum is truncated as well.
        let long: Vec<_> = (0..40).map(|n| past(n, kept.clone())).collect();
        assert_eq!(past(40, kept).added_to(&long).len(), PastAttempt::MAX);
    }

    #[test]
    fn history_keeps_a_short_error_unchanged() {
        let error = ErrorBody::new(ErrorCode::Timeout, "too slow");
        assert_eq!(past(1, error.clone()).added_to(&[])[0].error, error);
    }
}
