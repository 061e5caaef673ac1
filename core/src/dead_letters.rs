//! Dead letters: messages to a queue about requests that failed for good, from which an operator can redrive
//! the requests.
//!
//! The write that makes a request FAILED also marks its dead letter as due. The write that records the delivery
//! clears this mark. After a crash between the two writes, the dead letter is sent again under the same
//! [`id`](DeadLetter::id).

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

/// A message about a request that failed for good.
///
/// The message contains the error, and enough data to redrive the request, that is, to queue a new request
/// for the same work. The failed request need not be stored any longer. A dead letter with
/// [`left_out`](Self::left_out) fields lacks some of this data.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeadLetter {
    /// Id of the dead letter, in the form `{key}#{epoch}@{created_at}`: the failed request's key, the epoch in
    /// which the request failed, and the time at which the request was queued, in milliseconds since the Unix
    /// epoch.
    ///
    /// Two messages with the same id are copies of one dead letter. A later request that reuses the id of a
    /// deleted request gets a different dead letter id.
    pub id: String,
    /// The request id that the client chose.
    pub request_id: RequestId,
    /// The user who sent the failed request.
    pub user: UserId,
    /// The tenant of the user who sent the failed request.
    pub tenant: TenantId,
    /// The connection over which the failed request arrived.
    pub connection: ConnectionId,
    /// Name of the action that the failed request asked for.
    pub action: String,
    /// Payload of the failed request; null if it is listed in [`left_out`](Self::left_out).
    pub payload: Value,
    /// Metadata that the client sent with the failed request.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The error that the client received.
    pub error: ErrorBody,
    /// Number of attempts that the failed request used.
    pub attempts: u32,
    /// Maximum number of attempts that the failed request was allowed.
    pub max_attempts: u32,
    /// Epoch in which the request failed: the number of its last claim.
    pub epoch: u64,
    /// Failed attempts of the request, the latest last; at most [`PastAttempt::MAX`].
    pub history: Vec<PastAttempt>,
    /// Time at which the failed request was queued.
    pub created_at: Timestamp,
    /// Time at which the request failed for good.
    pub failed_at: Timestamp,
    /// Id of the dead letter from which the failed request was itself redriven; `None` if a client sent the
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<String>,
    /// Names of the fields that are left out of this message because they were too large or unreadable. The
    /// value is the field's size in bytes of JSON, or 0 if the field could not be read.
    ///
    /// A dead letter with fields left out can be redriven only while the failed request is still stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, usize>,
}

impl DeadLetter {
    /// Creates the dead letter of a failed request; returns `None` for a request that has not failed.
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

    /// Returns the key of the failed request.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        RequestKey::new(&self.tenant, &self.user, &self.request_id)
    }

    /// Returns the id of the request that a redrive of this dead letter creates.
    ///
    /// Every call returns the same id, so that repeating an interrupted redrive creates no second request.
    #[must_use]
    pub fn redriven_id(&self) -> RequestId {
        let (id, suffix) = (self.request_id.as_str(), format!(".redrive.{}", self.epoch));
        let room = RequestId::MAX_CHARS - suffix.len();
        if id.chars().count() <= room {
            return RequestId::new(format!("{id}{suffix}"));
        }
        // The hash of the dead letter's id keeps long request ids with the same beginning distinct.
        let hash = format!("~{:016x}", fnv1a(&self.id));
        let kept: String = id.chars().take(room - hash.len()).collect();
        RequestId::new(format!("{kept}{hash}{suffix}"))
    }

    /// Creates a new request for the same work, with all attempts left and without subscribers.
    ///
    /// The new request has a made-up connection id, so that closing the failed request's connection does not
    /// affect the new request.
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

/// Result of redriving a dead letter.
#[doc(hidden)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Redriven {
    /// The redrive has queued a new request with this id.
    New(RequestId),
    /// An earlier redrive of the same dead letter has already queued the request with this id.
    Already(RequestId),
    /// The user already has a different request with this id, so the redrive has queued no request.
    Conflict(RequestId),
    /// The dead letter lacks fields, such as a payload that was too large, and the failed request is no longer
    /// stored. The redrive has queued no request.
    Incomplete,
}

/// Queues a new request for the work of a dead letter. If the failed request is still stored, also records the
/// new request's id in the failed request.
///
/// The call may be repeated: it queues no second request. Delete the dead letter only after [`Redriven::New`]
/// or [`Redriven::Already`].
///
/// # Errors
/// [`StoreError`] if a read or write of the store fails. Keep the dead letter and redrive it again later.
#[doc(hidden)]
pub async fn redrive<Q: RequestQueue>(
    queue: &Q,
    letter: &DeadLetter,
    now: Timestamp,
) -> Result<Redriven, StoreError> {
    let failed = queue.get(&letter.key()).await?;
    // After the failed request has been deleted, a different request may use the same id.
    let failed =
        failed.filter(|request| DeadLetter::of(request).is_some_and(|of_request| of_request.id == letter.id));
    // The runner of a deleted request is unknown. The worker can run requests of any duration.
    let runner = failed.as_ref().map_or(Runner::Worker, |request| request.runner);
    let is_stored = failed.is_some();
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
    if !is_stored {
        return Ok(redriven);
    }
    match queue.record_redrive(&letter.key(), letter.epoch, &request.id).await {
        Err(error) if error.kind() != StoreErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(redriven),
    }
}

/// Sends dead letters to their queue.
pub trait DeadLetters: Send + Sync {
    /// Sends one dead letter.
    ///
    /// # Errors
    /// [`ServiceError`] if the send failed, or may have failed. The caller sends the dead letter again later,
    /// so the queue may receive it twice.
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
    fn redrive_creates_a_new_request_with_the_failed_requests_payload_and_history() {
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
        assert_ne!(request.connection, letter.connection, "the new request has its own connection id");
    }

    #[test]
    fn redriven_request_id_is_deterministic_unique_and_never_too_long() {
        let mut seen = std::collections::BTreeSet::new();
        for id in ["r1".to_owned(), "é".repeat(128), "é".repeat(127) + "f", "x".repeat(118)] {
            let redriven = letter(&id).redriven_id();
            assert_eq!(redriven, letter(&id).redriven_id());
            assert_eq!(RequestId::parse(redriven.as_str()), Ok(redriven.clone()));
            assert!(redriven.as_str().ends_with(".redrive.5"), "{redriven}");
            assert!(seen.insert(redriven));
        }
        // The id also stays valid, and differs from the previous id, if each redriven request fails and is
        // redriven.
        let (mut id, mut last) = (letter("r1").request_id, None);
        for _ in 0..40 {
            id = letter(id.as_str()).redriven_id();
            assert!(RequestId::parse(id.as_str()).is_ok() && last.as_ref() != Some(&id), "{id}");
            last = Some(id.clone());
        }
    }

    #[test]
    fn dead_letter_survives_a_json_round_trip() {
        let letter = letter("r1");
        let text = serde_json::to_string(&letter).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&text).unwrap(), letter);
        insta::assert_snapshot!(text, @r#"{"id":"acme/ann/r1#5@1000","request_id":"r1","user":"ann","tenant":"acme","connection":"c-ann","action":"print","payload":{"pages":3},"metadata":{"k":"v"},"error":{"code":"OUT_OF_PAPER","message":"No paper"},"attempts":2,"max_attempts":2,"epoch":5,"history":[{"attempt":2,"epoch":5,"ended_at":9000,"outcome":"failed","error":{"code":"OUT_OF_PAPER","message":"No paper"}}],"created_at":1000,"failed_at":9000}"#);
    }
}
