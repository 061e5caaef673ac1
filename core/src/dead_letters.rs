//! What becomes of a request that has failed for good: a letter to a queue, from which an operator may have it made anew.
//!
//! The letter is owed from the very write that ends the request, and struck out by the one that notes its delivery: a crash
//! between the two has it sent again, under the same [`id`](DeadLetter::id).

use std::collections::BTreeMap;
use std::future::Future;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aws::ServiceError;
use crate::ids::{ConnectionId, RequestId, RequestKey, TenantId, UserId};
use crate::ports::Timestamp;
use crate::protocol::ErrorBody;
use crate::store::{Ending, PastAttempt, Request};

/// All that is needed to know why a request failed, and to make it anew, though its item may have expired.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeadLetter {
    /// The request's key and the epoch in which it failed: letters with the same id are the same letter.
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
    /// What was too large for a message, and is not here: which part (`payload` first), and how many bytes it had as JSON.
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
            id: format!("{}#{}", request.key(), request.epoch),
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
}

/// Where dead letters go.
pub trait DeadLetters: Send + Sync {
    /// Sends one.
    ///
    /// # Errors
    /// When it is not known to have been taken: it is to be sent again, and may come twice.
    fn send(&self, letter: &DeadLetter) -> impl Future<Output = Result<(), ServiceError>> + Send;
}
