//! What a client may do about requests: queue one, ask about it, listen to it, cancel it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::about::About;
use super::snapshot::snapshot;
use super::{Caller, Router, store_failed};
use crate::connections::Connections;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::delivery::{EndedRequest, FanOut, deliver};
use crate::ids::{ConnectionId, RequestKey};
use crate::protocol::{ErrorBody, ErrorCode, Frame, Message, Seq};
use crate::service_error::ServiceError;
use crate::store::{
    Cancelled, ConnectionStore, Ending, Enqueued, Identity, Request, RequestQueue, Runner, Status,
    StoreErrorKind, Subscribed,
};
use crate::telemetry::Causes;

/// Nobody: a router sends no dead letters, which is the sweeper's to do.
enum NoDeadLetters {}

impl DeadLetters for NoDeadLetters {
    async fn send(&self, _: &DeadLetter) -> Result<(), ServiceError> {
        match *self {}
    }
}

impl<C: ConnectionStore, Q: RequestQueue, P: Connections> Router<C, Q, P> {
    /// How long the end of a request may take to reach one client: who asks waits for it. What fails is left to the
    /// request's timer.
    const PUSH_TIMEOUT: Duration = Duration::from_secs(2);
    /// How long the end of a request may be told and noted, all in all.
    const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
    /// How long before its answer is due that is over.
    const ANSWER_TIME: Duration = Duration::from_millis(500);

    pub(super) async fn enqueue(
        &self,
        caller: Caller,
        message: Message,
        estimated_duration: Duration,
    ) -> Result<Frame, ErrorBody> {
        let Message { action, payload, metadata, .. } = message;
        let Identity { user, tenant, .. } = &*caller.identity;
        let request = Request {
            metadata,
            max_attempts: self.app.retry_policy(&action).max_attempts,
            runner: if estimated_duration > self.settings.inline_limit {
                Runner::Worker
            } else {
                Runner::Processor
            },
            ..Request::new(
                caller.id.clone(),
                user.clone(),
                tenant.clone(),
                caller.connection.clone(),
                action,
                payload,
                caller.now,
            )
        };
        let enqueued =
            self.queue.enqueue(&request).await.map_err(|error| store_failed(&caller.id, &error))?;
        let status = match enqueued {
            Enqueued::New => {
                tracing::info!(request = %request.key(), action = request.action, "queued");
                Status::Pending
            }
            Enqueued::Existing(old) if old.action == request.action && old.payload == request.payload => {
                self.repeated(&caller, *old).await?
            }
            Enqueued::Existing(_) => {
                return Err(ErrorBody::new(
                    ErrorCode::Conflict,
                    "The id is in use for a request with another action or payload",
                ));
            }
        };
        Ok(Frame::Acknowledgment {
            request_id: caller.id,
            status: status.as_protocol().to_owned(),
            message: acknowledgment(status).to_owned(),
        })
    }

    /// Has a connection over which a request comes again listen to it, and says where it stands.
    async fn repeated(&self, caller: &Caller, old: Request) -> Result<Status, ErrorBody> {
        let connection = &caller.connection;
        if old.connection == *connection || old.subscribers.contains(connection) {
            return Ok(old.status);
        }
        match self.listen(caller, &old.key(), Seq::default()).await? {
            Some(request) => Ok(request.status),
            // It has expired a moment ago, and was known all the same.
            None => Ok(old.status),
        }
    }

    pub(super) async fn status(&self, caller: Caller, about: About) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &about);
        let found = self.queue.snapshot(&key).await.map_err(|error| store_failed(&caller.id, &error))?;
        Ok(snapshot(caller.id, &found.ok_or_else(not_found)?))
    }

    pub(super) async fn subscribe(&self, caller: Caller, about: About) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &about);
        let found = self.listen(&caller, &key, about.seen).await?;
        Ok(snapshot(caller.id, &found.ok_or_else(not_found)?))
    }

    pub(super) async fn cancel(&self, caller: Caller, about: About) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &about);
        let failed = |error| store_failed(&caller.id, &error);
        let cancelled = match self.queue.cancel(&key, caller.now).await {
            Ok(cancelled) => cancelled,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Err(not_found()),
            Err(error) => return Err(failed(error)),
        };
        let found = match cancelled {
            Cancelled::Now { subscribers, seq, epoch, parts_released } => {
                tracing::info!(request = %key, "cancelled");
                let ended = self.cancelled(&caller, &about, seq, epoch);
                let end = EndedRequest {
                    request: &ended,
                    audience: subscribers,
                    parts_released,
                    is_payload_lost: false,
                };
                // Told whatever becomes of the answer.
                tokio::join!(self.deliver_end(&caller, end), self.queue.snapshot(&key)).1
            }
            Cancelled::Requested => {
                tracing::info!(request = %key, "its holder is asked to stop");
                self.queue.snapshot(&key).await
            }
            Cancelled::HasOtherSubscribers | Cancelled::Ended(_) => self.queue.snapshot(&key).await,
        };
        Ok(snapshot(caller.id.clone(), &found.map_err(failed)?.ok_or_else(not_found)?))
    }

    /// What is known of a request that was cancelled right now: enough to tell its end.
    fn cancelled(&self, caller: &Caller, about: &About, seq: Seq, epoch: u64) -> Request {
        let Identity { user, tenant, .. } = &*caller.identity;
        Request {
            status: Status::Cancelled,
            epoch,
            seq,
            ending: Some(Ending::Cancelled),
            finished_at: Some(caller.now),
            ..Request::new(
                about.request_id.clone(),
                user.clone(),
                tenant.clone(),
                caller.connection.clone(),
                String::new(),
                serde_json::Value::Null,
                caller.now,
            )
        }
    }

    /// Has the caller's connection listen to a request, from its frame after `seen` on; if it has ended, its last frame
    /// is sent at once. Returns the request as it stands, if there is one.
    async fn listen(
        &self,
        caller: &Caller,
        key: &RequestKey,
        seen: Seq,
    ) -> Result<Option<Request>, ErrorBody> {
        let connection = &caller.connection;
        let subscribe = async || {
            let subscribed = self.queue.subscribe(key, connection, seen, caller.now).await;
            subscribed.map_err(|error| store_failed(&caller.id, &error))
        };
        let mut subscribed = subscribe().await?;
        if let Subscribed::Full(others) = &subscribed
            && self.make_room(key, others).await
        {
            subscribed = subscribe().await?;
        }
        let request = match subscribed {
            Subscribed::To(request) => *request,
            Subscribed::Missing => return Ok(None),
            Subscribed::Full(others) => {
                tracing::info!(request = %key, %connection, "as many as may listen to it already");
                let message = format!("{} connections listen to the request, and no more may", others.len());
                let error = ErrorBody::new(ErrorCode::RateLimited, message);
                return Err(error.with_detail("max_subscribers", Q::MAX_SUBSCRIBERS));
            }
        };
        if request.ending.is_some() {
            let audience = vec![connection.clone()];
            let end =
                EndedRequest { request: &request, audience, parts_released: false, is_payload_lost: false };
            self.deliver_end(caller, end).await;
        }
        Ok(Some(request))
    }

    /// Takes those connections off a request that are not there any more; says whether any was.
    async fn make_room(&self, key: &RequestKey, listening: &[ConnectionId]) -> bool {
        let left =
            join_all(listening.iter().map(async |connection| match self.connections.get(connection).await {
                Ok(found) => found.is_none(),
                Err(error) => {
                    tracing::warn!(%connection, error = %Causes(&error), "whether it is there is not known");
                    false
                }
            }));
        let mut is_room = false;
        for (connection, is_gone) in listening.iter().zip(left.await) {
            if !is_gone {
                continue;
            }
            match self.queue.unsubscribe(key, connection).await {
                Ok(()) => is_room = true,
                Err(error) => {
                    tracing::warn!(request = %key, %connection, error = %Causes(&error), "not unsubscribed");
                }
            }
        }
        is_room
    }

    /// Tells the end of a request, within the time for the answer.
    async fn deliver_end(&self, caller: &Caller, end: EndedRequest<'_>) {
        let now = Instant::now();
        let answered_by = caller.until.checked_sub(Self::ANSWER_TIME).unwrap_or(now);
        let until = answered_by.min(now + Self::DELIVERY_TIMEOUT);
        // There is no progress to be sent: no lease is needed.
        let fan_out = FanOut::new(&self.clients, end.request.key(), Self::PUSH_TIMEOUT, now, Vec::new());
        deliver(&self.queue, None::<&NoDeadLetters>, fan_out, end, until, Self::PUSH_TIMEOUT).await;
    }
}

fn key_of(caller: &Caller, about: &About) -> RequestKey {
    RequestKey::new(&caller.identity.tenant, &caller.identity.user, &about.request_id)
}

fn not_found() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "No such request is known")
}

const fn acknowledgment(status: Status) -> &'static str {
    match status {
        Status::Pending => "Request queued for async processing",
        Status::Processing => "Request is being processed",
        Status::Retrying => "Request is waiting for its next attempt",
        Status::Completed => "Request has completed",
        Status::Failed => "Request has failed",
        Status::Cancelled => "Request was cancelled",
    }
}
