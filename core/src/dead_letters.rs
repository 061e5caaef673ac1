//! What becomes of a request that has failed for good: a letter to a queue, from which an operator may have it made anew.
//!
//! The letter is owed from the very write that ends the request, and struck out by the one that notes its delivery: a crash
//! between the two has it sent again, under the same [`id`](DeadLetter::id).

use std::collections::BTreeMap;
use std::future::Future;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId, fnv1a};
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::service_error::ServiceError;
use crate::store::{
    Ending, Enqueued, PastAttempt, Request, RequestQueue, Runner, StoreError, StoreErrorKind,
};

/// All that is needed to know why a request failed, and to make it anew, though its item may have expired.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeadLetter {
    /// The request's key, the epoch in which it failed, and when it was queued, in milliseconds: `{key}#{epoch}@{created_at}`.
    /// Letters with the same id are the same letter; a request that has taken the id of one that expired has another.
    pub id: String,
    /// As its client names it.
    pub request_id: RequestId,
    /// Whose it is.
    pub user: UserId,
    /// In which tenant.
    pub tenant: TenantId,
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// What was asked for.
    pub action: String,
    /// What it was asked with.
    pub payload: Value,
    /// What its client wanted to have kept with it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What its client was told.
    pub error: ErrorBody,
    /// How often it was attempted.
    pub attempts: u32,
    /// How often it was allowed to be.
    pub max_attempts: u32,
    /// Raised by each claim: under which one it failed.
    pub epoch: u64,
    /// Its attempts, the latest last.
    pub history: Vec<PastAttempt>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it failed for good.
    pub failed_at: Timestamp,
    /// The letter that it had been made from itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<String>,
    /// What was too large for a message, and is not here: which part (`payload` first), and how many bytes it had as JSON; 0
    /// of a payload that could not be read.
    /// Without its payload a letter can only be redriven as long as its request is still stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, usize>,
}

impl DeadLetter {
    /// The letter of a request that has failed; `None` of any other.
    #[must_use]
    pub fn of(request: &Request) -> Option<Self> {
        let Some(Ending::Failed(error)) = &request.ending else { return None };
        Some(Self {
            id: format!("{}#{}@{}", request.key(), request.epoch, request.created_at.as_millis()),
            request_id: request.id.clone(),
            user: request.user.clone(),
            tenant: request.tenant.clone(),
            connection: request.connection.clone(),
            action: request.action.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            error: error.clone(),
            attempts: request.attempt,
            max_attempts: request.max_attempts,
            epoch: request.epoch,
            history: request.history.clone(),
            created_at: request.created_at,
            failed_at: request.finished_at.unwrap_or_default(),
            redrive_of: request.redrive_of.clone(),
            left_out: BTreeMap::new(),
        })
    }

    /// The key of the request that failed.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::new(&self.tenant, &self.user, &self.request_id)
    }

    /// The id of the request that is made from this letter: always the same, so that a letter whose redrive was interrupted
    /// makes no second one.
    #[must_use]
    pub fn redriven_id(&self) -> RequestId {
        let (id, end) = (self.request_id.as_str(), format!(".redrive.{}", self.epoch));
        let room = RequestId::MAX_CHARS - end.len();
        if id.chars().count() <= room {
            return RequestId::new(format!("{id}{end}"));
        }
        // Ids that begin alike stay apart by a hash of the whole.
        let hash = format!("~{:016x}", fnv1a(&self.id));
        let kept: String = id.chars().take(room - hash.len()).collect();
        RequestId::new(format!("{kept}{hash}{end}"))
    }

    /// A new request for the same work, with all its attempts before it, that nobody listens to yet.
    ///
    /// It has come over no connection: the end of that which the first came over does not concern it.
    #[must_use]
    pub fn redrive(&self, runner: Runner, now: Timestamp) -> Request {
        let connection = ConnectionId::new(format!("redrive-{:016x}", fnv1a(&self.id)));
        let (user, tenant) = (self.user.clone(), self.tenant.clone());
        let (action, payload) = (self.action.clone(), self.payload.clone());
        Request {
            metadata: self.metadata.clone(),
            max_attempts: self.max_attempts.max(1),
            runner,
            history: self.history.clone(),
            redrive_of: Some(self.id.clone()),
            subscribers: Vec::new(),
            ..Request::new(self.redriven_id(), user, tenant, connection, action, payload, now)
        }
    }
}

/// What became of a wish to have a failed request made anew.
#[doc(hidden)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Redriven {
    /// There is a new request, which is queued.
    New(RequestId),
    /// It had been made before, by somebody who did not come to an end with it.
    Already(RequestId),
    /// Its user has another request of the id that the new one would have: none was made.
    Conflict(RequestId),
    /// The letter lacks what was too large for it, such as the payload, and the request itself has expired: none was made.
    Incomplete,
}

/// Makes a new request from a letter, and notes on the old one, where that has not expired, which it is. The letter may be
/// thrown away then; as long as it is not, this can be repeated, and makes no second one.
///
/// # Errors
/// When the store does not take it: the letter is to be kept, and tried again.
#[doc(hidden)]
pub async fn redrive<Q: RequestQueue>(
    queue: &Q,
    letter: &DeadLetter,
    now: Timestamp,
) -> Result<Redriven, StoreError> {
    let failed = queue.get(&letter.key()).await?;
    // After it has expired, its id may be another request's.
    let failed =
        failed.filter(|request| DeadLetter::of(request).is_some_and(|of_request| of_request.id == letter.id));
    // What is known no more may be of any length: the worker runs whatever it is.
    let runner = failed.as_ref().map_or(Runner::Worker, |request| request.runner);
    let is_kept = failed.is_some();
    let request = match failed {
        _ if letter.left_out.is_empty() => letter.redrive(runner, now),
        Some(failed) => Request {
            payload: failed.payload,
            metadata: failed.metadata,
            history: failed.history,
            ..letter.redrive(runner, now)
        },
        None => return Ok(Redriven::Incomplete),
    };
    let id = request.id.clone();
    let redriven = match queue.enqueue(&request).await? {
        Enqueued::New => Redriven::New(id),
        Enqueued::Existing(found) if found.redrive_of == request.redrive_of => Redriven::Already(id),
        Enqueued::Existing(_) => return Ok(Redriven::Conflict(id)),
    };
    if !is_kept {
        return Ok(redriven);
    }
    match queue.record_redrive(&letter.key(), letter.epoch, &request.id).await {
        Err(error) if error.kind() != StoreErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(redriven),
    }
}

/// Where dead letters go.
pub trait DeadLetters: Send + Sync {
    /// Sends one.
    ///
    /// # Errors
    /// When it is not known to have been taken: it is to be sent again, and may come twice.
    fn send(&self, letter: &DeadLetter) -> impl Future<Output = Result<(), ServiceError>> + Send;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::AttemptOutcome;

    fn letter(id: &str) -> DeadLetter {
        let mut request = Request::new(
            id.into(),
            "ann".into(),
            "acme".into(),
            "c-ann".into(),
            "print",
            json!({"pages": 3}),
            Timestamp::from_secs(1),
        );
        let error = ErrorBody::new("OUT_OF_PAPER".into(), "No paper");
        let (attempt, epoch, outcome) = (2, 5, AttemptOutcome::Failed);
        let ended_at = Timestamp::from_secs(9);
        let past = PastAttempt { attempt, epoch, started_at: None, ended_at, outcome, error: error.clone() };
        request.metadata.insert("k".into(), "v".into());
        (request.attempt, request.max_attempts, request.epoch) = (2, 2, 5);
        request.history = past.added_to(&[]);
        request.ending = Some(Ending::Failed(error));
        request.finished_at = Some(ended_at);
        DeadLetter::of(&request).unwrap()
    }

    #[test]
    fn a_redrive_is_a_new_request_for_the_same_work_that_keeps_the_history() {
        let letter = letter("r1");
        let request = letter.redrive(Runner::Worker, Timestamp::from_secs(20));
        let expected = Request {
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            max_attempts: 2,
            runner: Runner::Worker,
            history: letter.history.clone(),
            redrive_of: Some("acme/ann/r1#5@1000".into()),
            subscribers: Vec::new(),
            ..Request::new(
                "r1.redrive.5".into(),
                "ann".into(),
                "acme".into(),
                request.connection.clone(),
                "print",
                json!({"pages": 3}),
                Timestamp::from_secs(20),
            )
        };
        assert_eq!(request, expected);
        assert_ne!(request.connection, letter.connection);
    }

    #[test]
    fn the_id_of_a_redrive_is_always_the_same_and_never_too_long() {
        let mut seen = std::collections::BTreeSet::new();
        for id in ["r1".to_owned(), "é".repeat(128), "é".repeat(127) + "f", "x".repeat(118)] {
            let redriven = letter(&id).redriven_id();
            assert_eq!(redriven, letter(&id).redriven_id());
            assert_eq!(RequestId::parse(redriven.as_str()), Ok(redriven.clone()));
            assert!(redriven.as_str().ends_with(".redrive.5"), "{redriven}");
            assert!(seen.insert(redriven));
        }
        // And of a redrive's redrive.
        let (mut id, mut last) = (letter("r1").request_id, None);
        for _ in 0..40 {
            id = letter(id.as_str()).redriven_id();
            assert!(RequestId::parse(id.as_str()).is_ok() && last.as_ref() != Some(&id), "{id}");
            last = Some(id.clone());
        }
    }

    #[test]
    fn a_letter_reads_as_it_was_written() {
        let letter = letter("r1");
        let text = serde_json::to_string(&letter).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&text).unwrap(), letter);
        insta::assert_snapshot!(text, @r#"{"id":"acme/ann/r1#5@1000","request_id":"r1","user":"ann","tenant":"acme","connection":"c-ann","action":"print","payload":{"pages":3},"metadata":{"k":"v"},"error":{"code":"OUT_OF_PAPER","message":"No paper"},"attempts":2,"max_attempts":2,"epoch":5,"history":[{"attempt":2,"epoch":5,"ended_at":9000,"outcome":"failed","error":{"code":"OUT_OF_PAPER","message":"No paper"}}],"created_at":1000,"failed_at":9000}"#);
    }
}
