//! The router's operations on stored requests: enqueue, status, subscribe and cancel.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::request_ref::RequestRef;
use super::snapshot::snapshot;
use super::{Caller, Router, store_failed};
use crate::connections::Connections;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::delivery::{FanOut, TerminalRequest, deliver};
use crate::ids::{ConnectionId, RequestKey};
use crate::protocol::{ErrorBody, ErrorCode, Frame, Message, Seq};
use crate::service_error::ServiceError;
use crate::store::{
    Cancelled, ConnectionStore, Ending, Enqueued, Identity, Request, RequestQueue, Runner, Status,
    StoreErrorKind, Subscribed,
};
use crate::telemetry::Causes;

/// The router's [`DeadLetters`] type. It has no values, because the router never sends a dead letter: the
/// sweeper sends the dead letters that are due.
enum NoDeadLetters {}

impl DeadLetters for NoDeadLetters {
    async fn send(&self, _: &DeadLetter) -> Result<(), ServiceError> {
        match *self {}
    }
}

impl<C: ConnectionStore, Q: RequestQueue, P: Connections> Router<C, Q, P> {
    /// Timeout for sending a terminal frame to one client. Short, because the router's answer waits for the
    /// send.
    ///
    /// If the send fails, the request's timer stays set, and the sweeper sends the frame again.
    const PUSH_TIMEOUT: Duration = Duration::from_secs(2);
    /// Maximum time for delivering a terminal frame and recording the delivery.
    const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
    /// Time reserved for the answer between the end of a delivery and the deadline of the answer.
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
                tracing::info!(request = %request.key(), action = request.action, "request queued");
                Status::Pending
            }
            Enqueued::Existing(old) if old.action == request.action && old.payload == request.payload => {
                self.subscribe_repeated(&caller, *old).await?
            }
            Enqueued::Existing(_) => {
                return Err(ErrorBody::new(
                    ErrorCode::Conflict,
                    "The id is already used by a request with a different action or payload",
                ));
            }
        };
        Ok(Frame::Acknowledgment {
            request_id: caller.id,
            status: status.as_protocol().to_owned(),
            message: acknowledgment(status).to_owned(),
        })
    }

    /// Subscribes the caller's connection to a request that was sent again, and returns the request's status.
    async fn subscribe_repeated(&self, caller: &Caller, old: Request) -> Result<Status, ErrorBody> {
        let connection = &caller.connection;
        if old.connection == *connection || old.subscribers.contains(connection) {
            return Ok(old.status);
        }
        match self.add_subscriber(caller, &old.key(), Seq::default()).await? {
            Some(request) => Ok(request.status),
            // The item was deleted after `enqueue` had read it, so the answer has the status that `enqueue`
            // read.
            None => Ok(old.status),
        }
    }

    pub(super) async fn status(&self, caller: Caller, target: RequestRef) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &target);
        let found = self.queue.snapshot(&key).await.map_err(|error| store_failed(&caller.id, &error))?;
        Ok(snapshot(caller.id, &found.ok_or_else(not_found)?))
    }

    pub(super) async fn subscribe(&self, caller: Caller, target: RequestRef) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &target);
        let found = self.add_subscriber(&caller, &key, target.last_seen).await?;
        Ok(snapshot(caller.id, &found.ok_or_else(not_found)?))
    }

    pub(super) async fn cancel(&self, caller: Caller, target: RequestRef) -> Result<Frame, ErrorBody> {
        let key = key_of(&caller, &target);
        let failed = |error| store_failed(&caller.id, &error);
        let cancelled = match self.queue.cancel(&key, caller.now).await {
            Ok(cancelled) => cancelled,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Err(not_found()),
            Err(error) => return Err(failed(error)),
        };
        let found = match cancelled {
            Cancelled::Now { subscribers, seq, epoch, part_ttls_set } => {
                tracing::info!(request = %key, "request cancelled");
                let request = self.cancelled_request(&caller, &target, seq, epoch);
                let ended = TerminalRequest {
                    request: &request,
                    audience: subscribers,
                    part_ttls_set,
                    is_payload_lost: false,
                };
                // The terminal frame is delivered even if the snapshot for the answer cannot be read.
                tokio::join!(self.deliver_terminal_frame(&caller, ended), self.queue.snapshot(&key)).1
            }
            Cancelled::Requested => {
                tracing::info!(request = %key, "cancel requested of the running attempt");
                self.queue.snapshot(&key).await
            }
            Cancelled::HasOtherSubscribers | Cancelled::Ended(_) => self.queue.snapshot(&key).await,
        };
        Ok(snapshot(caller.id.clone(), &found.map_err(failed)?.ok_or_else(not_found)?))
    }

    /// Builds a request that was just cancelled, with the fields that its terminal frame needs, and
    /// placeholders for all other fields.
    fn cancelled_request(&self, caller: &Caller, target: &RequestRef, seq: Seq, epoch: u64) -> Request {
        let Identity { user, tenant, .. } = &*caller.identity;
        Request {
            status: Status::Cancelled,
            epoch,
            seq,
            ending: Some(Ending::Cancelled),
            finished_at: Some(caller.now),
            ..Request::new(
                target.request_id.clone(),
                user.clone(),
                tenant.clone(),
                caller.connection.clone(),
                String::new(),
                serde_json::Value::Null,
                caller.now,
            )
        }
    }

    /// Subscribes the caller's connection to a request, for frames with a sequence number above `last_seen`.
    ///
    /// If the request is terminal, its terminal frame is sent immediately. Returns the stored request, or
    /// `None` if the request does not exist.
    async fn add_subscriber(
        &self,
        caller: &Caller,
        key: &RequestKey,
        last_seen: Seq,
    ) -> Result<Option<Request>, ErrorBody> {
        let connection = &caller.connection;
        let subscribe = async || {
            let subscribed = self.queue.subscribe(key, connection, last_seen, caller.now).await;
            subscribed.map_err(|error| store_failed(&caller.id, &error))
        };
        let mut subscribed = subscribe().await?;
        if let Subscribed::Full(others) = &subscribed
            && self.remove_closed_subscribers(key, others).await
        {
            subscribed = subscribe().await?;
        }
        let request = match subscribed {
            Subscribed::To(request) => *request,
            Subscribed::Missing => return Ok(None),
            Subscribed::Full(others) => {
                tracing::info!(
                    request = %key, %connection,
                    "subscription refused; request has the maximum number of subscribers"
                );
                let message = format!("The request already has {} subscribers, the maximum", others.len());
                let error = ErrorBody::new(ErrorCode::RateLimited, message);
                return Err(error.with_detail("max_subscribers", Q::MAX_SUBSCRIBERS));
            }
        };
        if request.ending.is_some() {
            let audience = vec![connection.clone()];
            let ended =
                TerminalRequest { request: &request, audience, part_ttls_set: false, is_payload_lost: false };
            self.deliver_terminal_frame(caller, ended).await;
        }
        Ok(Some(request))
    }

    /// Removes subscribers whose connection no longer has a record. Returns whether at least one subscriber
    /// was removed.
    async fn remove_closed_subscribers(&self, key: &RequestKey, subscribers: &[ConnectionId]) -> bool {
        let are_closed =
            join_all(subscribers.iter().map(
                async |connection| match self.connections.get(connection).await {
                    Ok(found) => found.is_none(),
                    Err(error) => {
                        tracing::warn!(
                            request = %key, %connection, error = %Causes(&error),
                            "connection record could not be read; subscriber kept"
                        );
                        false
                    }
                },
            ));
        let mut is_any_removed = false;
        for (connection, is_closed) in subscribers.iter().zip(are_closed.await) {
            if !is_closed {
                continue;
            }
            match self.queue.unsubscribe(key, connection).await {
                Ok(()) => is_any_removed = true,
                Err(error) => {
                    tracing::warn!(
                        request = %key, %connection, error = %Causes(&error),
                        "subscriber of a closed connection not removed"
                    );
                }
            }
        }
        is_any_removed
    }

    /// Delivers the terminal frame of a request, and returns before the deadline of the router's answer.
    async fn deliver_terminal_frame(&self, caller: &Caller, ended: TerminalRequest<'_>) {
        let now = Instant::now();
        let answered_by = caller.until.checked_sub(Self::ANSWER_TIME).unwrap_or(now);
        let until = answered_by.min(now + Self::DELIVERY_TIMEOUT);
        // The fan-out gets a lease that ends now, because only progress frames need a lease, and no progress
        // is sent here.
        let fan_out = FanOut::new(&self.clients, ended.request.key(), Self::PUSH_TIMEOUT, now, Vec::new());
        deliver(&self.queue, None::<&NoDeadLetters>, fan_out, ended, until, Self::PUSH_TIMEOUT).await;
    }
}

fn key_of(caller: &Caller, target: &RequestRef) -> RequestKey {
    RequestKey::new(&caller.identity.tenant, &caller.identity.user, &target.request_id)
}

fn not_found() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "The request was not found")
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
