//! The Runtime API of one environment: what a function's process talks to.

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

/// What the function is called with.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) request_id: String,
    pub(super) trace_id: String,
    pub(super) deadline_ms: u64,
    pub(super) function_arn: String,
    pub(super) payload: Bytes,
}

/// What the function makes of an event.
pub(super) type Reply = Result<Bytes, InvokeError>;

/// Where the runtime stands.
#[derive(Debug)]
enum Phase {
    /// The process has not asked for its first event.
    Starting,
    /// The process said that it cannot start.
    InitFailed(InvokeError),
    /// The runtime waits for an event.
    Ready,
    /// The runtime has an event; asked again for the next one it gets the same, as AWS's own code does.
    Invoked { event: Event, reply: oneshot::Sender<Reply> },
    /// The event of this id is answered, and the runtime has not asked for another.
    Answered { request_id: String },
}

/// The Runtime API of one environment.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    phase: watch::Sender<Phase>,
    /// What is frozen while it waits for an event. It is stopped and continued under the lock of the phase, so that
    /// the two cannot overtake each other.
    frozen: OnceLock<Group>,
}

impl RuntimeApi {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { phase: watch::Sender::new(Phase::Starting), frozen: OnceLock::new() })
    }

    /// The endpoints, to serve on the environment's own port.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(Arc::clone(self))
    }

    /// Has these processes make no progress while the runtime waits for an event, as AWS freezes a sandbox.
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
    /// With what the runtime reported, when it cannot start.
    pub(super) async fn ready(&self) -> Result<(), InvokeError> {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| matches!(phase, Phase::Ready | Phase::InitFailed(_))).await;
        match &*phase.expect("the sender lives in self") {
            Phase::InitFailed(error) => Err(error.clone()),
            Phase::Starting | Phase::Ready | Phase::Invoked { .. } | Phase::Answered { .. } => Ok(()),
        }
    }

    /// Gives `event` to the runtime, which must be ready. The receiver ends without a reply when the
    /// environment is gone.
    pub(super) fn hand_over(&self, event: Event) -> oneshot::Receiver<Reply> {
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
                    // Nobody waits for it any more when the invocation has just timed out.
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
    let phase = phase.expect("the sender lives in the state");
    let Phase::Invoked { event, .. } = &*phase else { unreachable!("it was just waited for") };
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
    async fn replies_row_a_wrong_state_is_refused_in_every_phase() {
        let forbidden = Err(Refusal::InvalidStateTransition);
        let unknown = Err(Refusal::InvalidRequestId);

        let api = RuntimeApi::new();
        assert_eq!(api.answered("a", Ok(Bytes::new())), unknown, "starting");
        assert_eq!(api.asked_for_next(), Ok(()));
        assert_eq!(api.asked_for_next(), Ok(()), "ready: asking twice is no error");
        assert_eq!(api.answered("a", Ok(Bytes::new())), unknown, "ready");
        assert_eq!(api.init_failed(failure("x", "y")), forbidden, "ready");

        let reply = api.hand_over(event("a"));
        assert_eq!(api.asked_for_next(), Ok(()), "running: the same event again");
        assert_eq!(api.init_failed(failure("x", "y")), forbidden, "running");
        assert_eq!(api.answered("b", Ok(Bytes::new())), unknown, "running");
        assert_eq!(api.answered("a", Ok(Bytes::from_static(b"1"))), Ok(()));
        assert_eq!(api.answered("a", Ok(Bytes::from_static(b"2"))), forbidden, "answered");
        assert_eq!(api.answered("b", Ok(Bytes::new())), unknown, "answered");
        assert_eq!(reply.await.unwrap(), Ok(Bytes::from_static(b"1")));
        assert_eq!(api.asked_for_next(), Ok(()));

        let api = RuntimeApi::new();
        assert_eq!(api.init_failed(failure("x", "y")), Ok(()));
        assert_eq!(api.init_failed(failure("x", "z")), forbidden, "once is enough");
        assert_eq!(api.asked_for_next(), forbidden, "a runtime that failed to start gets no event");
        assert_eq!(api.ready().await, Err(failure("x", "y")));
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_taken_all_the_same() {
        let api = RuntimeApi::new();
        drop(api.hand_over(event("late")));
        assert_eq!(api.answered("late", Ok(Bytes::new())), Ok(()));
    }
}
