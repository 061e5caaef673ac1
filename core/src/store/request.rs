use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode, Seq};

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

/// Which function runs a request.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Runner {
    /// The processor, beside the others of its batch: what is expected to be over soon.
    #[default]
    Processor,
    /// The worker, alone in an invocation: what takes long, what goes on from a checkpoint, and what has brought a process
    /// down.
    Worker,
}

/// An attempt that did not end its request well, as its history keeps it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PastAttempt {
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Under which claim it ended.
    pub epoch: u64,
    /// When it was last claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended, or was found to have.
    pub ended_at: Timestamp,
    /// What became of it.
    pub outcome: AttemptOutcome,
    /// What its client would be told, cut short, and without details.
    pub error: ErrorBody,
}

impl PastAttempt {
    /// The most attempts that a history keeps: the latest. Each write of the request pays for them.
    pub const MAX: usize = 10;
    /// The most characters of an error's message that it keeps.
    pub const MAX_MESSAGE_CHARS: usize = 120;
    /// The most characters of an error's code that it keeps.
    pub const MAX_CODE_CHARS: usize = 64;

    /// The history of a request with this attempt added to it: bounded, whatever came before.
    #[must_use]
    pub fn added_to(mut self, history: &[Self]) -> Vec<Self> {
        let message: String = self.error.message.chars().take(Self::MAX_MESSAGE_CHARS).collect();
        let code: String = self.error.code.as_str().chars().take(Self::MAX_CODE_CHARS).collect();
        self.error = ErrorBody::new(ErrorCode::from(code.as_str()), message);
        let kept = history.len().saturating_sub(Self::MAX - 1);
        history[kept..].iter().cloned().chain([self]).collect()
    }
}

/// What became of an attempt that did not end its request well.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Its handler, or a layer, returned an error.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// Its handler, or a layer, panicked.
    Panicked,
    /// Its lease ended and nobody had said anything: its process died, or lost its way to the store.
    Crashed,
}

/// What an attempt has last said of itself: it goes with every write by which the request leaves the attempt, so that
/// nothing that was pushed is ever ahead of what is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastReport {
    /// How far it has come.
    pub progress: Progress,
    /// The number of its last frame: of a write that ends the request, that of the terminal frame.
    pub seq: Seq,
    /// When the write is made.
    pub at: Timestamp,
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
    /// How often it went on from a checkpoint in a fresh invocation; that counts as no attempt.
    pub continuations: u32,
    /// Which function runs it.
    pub runner: Runner,
    /// Raised by each claim: writes of an earlier one are refused.
    pub epoch: u64,
    /// Whose claim holds, and until when.
    pub lease: Option<Lease>,
    /// Whether its user or an operator wants it to end, and its handler goes on.
    pub cancel_requested: bool,
    /// How far it has come.
    pub progress: Progress,
    /// The number of the last frame that was stored.
    pub seq: Seq,
    /// What its handler saved last, to go on from.
    pub checkpoint: Option<Value>,
    /// Its attempts that did not end it well, the latest last; also those of the request that it is a redrive of.
    pub history: Vec<PastAttempt>,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
    /// Whether it has failed for good and its dead letter is still to be sent.
    pub is_dead_letter_due: bool,
    /// The dead letter that it was made from: see [`DeadLetter::id`](crate::dead_letters::DeadLetter).
    pub redrive_of: Option<String>,
    /// The request that was made from its dead letter.
    pub redriven_as: Option<RequestId>,
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
    /// A new request, pending and never attempted, with one attempt, nothing kept with it, and its connection listening.
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
    /// How often it went on from a checkpoint in a fresh invocation; that counts as no attempt.
    pub continuations: u32,
    /// Which function runs it.
    pub runner: Runner,
    /// Raised by each claim: writes of an earlier one are refused.
    pub epoch: u64,
    /// Whose claim holds, and until when.
    pub lease: Option<Lease>,
    /// Whether its user or an operator wants it to end, and its handler goes on.
    pub cancel_requested: bool,
    /// Its attempts that did not end it well, the latest last.
    pub history: Vec<PastAttempt>,
    /// Whether it has failed for good and its dead letter is still to be sent.
    pub is_dead_letter_due: bool,
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
    fn a_history_keeps_the_latest_and_of_each_no_more_than_it_says() {
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
        assert!(bytes < 5 * 1024, "{bytes}");
        // One that came from elsewhere with more than that.
        let long: Vec<_> = (0..40).map(|n| past(n, kept.clone())).collect();
        assert_eq!(past(40, kept).added_to(&long).len(), PastAttempt::MAX);
    }

    #[test]
    fn a_short_error_is_kept_as_it_is() {
        let error = ErrorBody::new(ErrorCode::Timeout, "too slow");
        assert_eq!(past(1, error.clone()).added_to(&[])[0].error, error);
    }
}
