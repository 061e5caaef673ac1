//! The Runtime API of one environment, which the function's process calls to receive events and to send
//! replies.

mod messages;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::invoke::InvokeError;
use super::process::Group;
use messages::{Accepted, Refusal, reported_error};

use crate::watch;
pub(super) use messages::{MAX_REPLY_BYTES, read_to_end, response_too_large};

/// An event for a function, with the metadata that the runtime receives.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) request_id: String,
    pub(super) trace_id: String,
    pub(super) deadline_ms: u64,
    pub(super) function_arn: String,
    pub(super) payload: Bytes,
}

/// Reply of a function to an event, or the function's error.
pub(super) type Reply = Result<Bytes, InvokeError>;

/// State of the runtime, as Lambda tracks it.
#[derive(Debug)]
enum Phase {
    /// The process has not asked for its first event.
    Starting,
    /// The process reported an error in its init phase.
    InitFailed(InvokeError),
    /// The runtime waits for an event.
    Ready,
    /// The runtime is processing an event. If the runtime asks for the next event, it receives the same event
    /// again, as in AWS's own implementation.
    Invoked { event: Event, reply: oneshot::Sender<Reply> },
    /// The runtime has answered the event with this request id, and has not asked for the next event.
    Answered { request_id: String },
}

/// The Runtime API of one environment.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    phase: watch::Sender<Phase>,
    /// Process group to freeze while the runtime waits for an event; unset if freezing is off. Signals are
    /// sent under the lock of `phase`, so that SIGSTOP and SIGCONT are sent in the order of the phases.
    frozen: OnceLock<Group>,
}

impl RuntimeApi {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { phase: watch::Sender::new(Phase::Starting), frozen: OnceLock::new() })
    }

    /// Returns the endpoints of the Runtime API, to be served on the environment's own port.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(Arc::clone(self))
    }

    /// Freezes `group` whenever the runtime waits for an event, as AWS freezes a sandbox.
    pub(super) fn freeze_while_idle(&self, group: Group) {
        self.phase.send_if_modified(|phase| {
            let group = self.frozen.get_or_init(|| group);
            if matches!(phase, Phase::Ready) {
                group.stop();
            }
            false
        });
    }

    /// Waits until the runtime asks for an event.
    ///
    /// # Errors
    /// The [`InvokeError`] that the runtime reported if its init phase failed.
    pub(super) async fn ready(&self) -> Result<(), InvokeError> {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| matches!(phase, Phase::Ready | Phase::InitFailed(_))).await;
        match &*phase.expect("`self` holds the sender") {
            Phase::InitFailed(error) => Err(error.clone()),
            Phase::Starting | Phase::Ready | Phase::Invoked { .. } | Phase::Answered { .. } => Ok(()),
        }
    }

    /// Sends `event` to the runtime, which must be ready. The receiver fails if the environment ends without
    /// a reply.
    pub(super) fn send_event(&self, event: Event) -> oneshot::Receiver<Reply> {
        let (reply, receiver) = oneshot::channel();
        self.phase.send_modify(|phase| {
            if let Some(group) = self.frozen.get() {
                group.resume();
            }
            *phase = Phase::Invoked { event, reply };
        });
        receiver
    }

    fn asked_for_next(&self) -> Result<(), Refusal> {
        let mut refusal = None;
        self.phase.send_if_modified(|phase| match phase {
            Phase::Starting | Phase::Answered { .. } => {
                *phase = Phase::Ready;
                if let Some(group) = self.frozen.get() {
                    group.stop();
                }
                true
            }
            Phase::Ready | Phase::Invoked { .. } => false,
            Phase::InitFailed(_) => {
                refusal = Some(Refusal::InvalidStateTransition);
                false
            }
        });
        refusal.map_or(Ok(()), Err)
    }

    fn answered(&self, id: &str, answer: Reply) -> Result<(), Refusal> {
        let mut outcome = Err(Refusal::InvalidRequestId);
        self.phase.send_if_modified(|phase| match phase {
            Phase::Invoked { event, .. } if event.request_id == id => {
                let request_id = event.request_id.clone();
                if let Phase::Invoked { reply, .. } = std::mem::replace(phase, Phase::Answered { request_id })
                {
                    // Sending fails if the invocation has just timed out. In that case, the reply is not
                    // needed.
                    let _ = reply.send(answer);
                }
                outcome = Ok(());
                true
            }
            Phase::Answered { request_id } if request_id == id => {
                outcome = Err(Refusal::InvalidStateTransition);
                false
            }
            Phase::Starting
            | Phase::InitFailed(_)
            | Phase::Ready
            | Phase::Invoked { .. }
            | Phase::Answered { .. } => false,
        });
        outcome
    }

    fn init_failed(&self, error: InvokeError) -> Result<(), Refusal> {
        let starting = self.phase.send_if_modified(|phase| {
            let starting = matches!(phase, Phase::Starting);
            if starting {
                *phase = Phase::InitFailed(error);
            }
            starting
        });
        if starting { Ok(()) } else { Err(Refusal::InvalidStateTransition) }
    }
}

async fn next(State(api): State<Arc<RuntimeApi>>) -> Result<Response, Refusal> {
    api.asked_for_next()?;
    let mut phase = api.phase.subscribe();
    let phase = phase.wait_for(|phase| matches!(phase, Phase::Invoked { .. })).await;
    let phase = phase.expect("`api` holds the sender");
    let Phase::Invoked { event, .. } = &*phase else { unreachable!("the wait ended in phase `Invoked`") };
    let headers = [
        ("content-type", "application/json"),
        ("lambda-runtime-aws-request-id", &event.request_id),
        ("lambda-runtime-deadline-ms", &event.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", &event.function_arn),
        ("lambda-runtime-trace-id", &event.trace_id),
    ];
    Ok((headers, event.payload.clone()).into_response())
}

async fn response(
    State(api): State<Arc<RuntimeApi>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Accepted, Refusal> {
    let Some(reply) = read_to_end(body, MAX_REPLY_BYTES).await? else {
        api.answered(&id, Err(response_too_large()))?;
        return Err(Refusal::RequestEntityTooLarge);
    };
    api.answered(&id, Ok(reply)).map(|()| Accepted)
}

async fn error(
    State(api): State<Arc<RuntimeApi>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted, Refusal> {
    let body = read_to_end(body, MAX_REPLY_BYTES).await?.unwrap_or_default();
    api.answered(&id, Err(reported_error(&headers, &body))).map(|()| Accepted)
}

async fn init_error(
    State(api): State<Arc<RuntimeApi>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted, Refusal> {
    let body = read_to_end(body, MAX_REPLY_BYTES).await?.unwrap_or_default();
    api.init_failed(reported_error(&headers, &body)).map(|()| Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Event {
        Event {
            request_id: id.to_owned(),
            trace_id: "Root=1".to_owned(),
            deadline_ms: 7,
            function_arn: "arn".to_owned(),
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn failure(error_type: &str, message: &str) -> InvokeError {
        InvokeError::Function { error_type: error_type.to_owned(), message: message.to_owned() }
    }

    #[tokio::test]
    async fn runtime_message_in_the_wrong_phase_is_refused() {
        let forbidden = Err(Refusal::InvalidStateTransition);
        let unknown = Err(Refusal::InvalidRequestId);

        let api = RuntimeApi::new();
        assert_eq!(api.answered("a", Ok(Bytes::new())), unknown, "starting: a reply is refused");
        assert_eq!(api.asked_for_next(), Ok(()));
        assert_eq!(api.asked_for_next(), Ok(()), "ready: a second request for the next event is accepted");
        assert_eq!(api.answered("a", Ok(Bytes::new())), unknown, "ready: a reply is refused");
        assert_eq!(api.init_failed(failure("x", "y")), forbidden, "ready: an init error is refused");

        let reply = api.send_event(event("a"));
        assert_eq!(api.asked_for_next(), Ok(()), "running: a request for the next event is accepted");
        assert_eq!(api.init_failed(failure("x", "y")), forbidden, "running: an init error is refused");
        assert_eq!(
            api.answered("b", Ok(Bytes::new())),
            unknown,
            "running: a reply with an unknown request id is refused"
        );
        assert_eq!(api.answered("a", Ok(Bytes::from_static(b"1"))), Ok(()));
        assert_eq!(api.answered("a", Ok(Bytes::from_static(b"2"))), forbidden, "a second reply is refused");
        assert_eq!(
            api.answered("b", Ok(Bytes::new())),
            unknown,
            "answered: a reply with an unknown request id is refused"
        );
        assert_eq!(reply.await.unwrap(), Ok(Bytes::from_static(b"1")));
        assert_eq!(api.asked_for_next(), Ok(()));

        let api = RuntimeApi::new();
        assert_eq!(api.init_failed(failure("x", "y")), Ok(()));
        assert_eq!(
            api.init_failed(failure("x", "z")),
            forbidden,
            "init failed: a second init error is refused"
        );
        assert_eq!(api.asked_for_next(), forbidden, "a runtime that failed to start gets no event");
        assert_eq!(api.ready().await, Err(failure("x", "y")));
    }

    #[test]
    fn runtime_reply_is_accepted_after_the_invocation_has_stopped_waiting() {
        let api = RuntimeApi::new();
        drop(api.send_event(event("late")));
        assert_eq!(api.answered("late", Ok(Bytes::new())), Ok(()));
    }
}
