use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tower::service_fn;

use super::{Context, Handler, HandlerError};
use crate::middleware::{Call, CallError, Next, Phase, Reply};
use crate::progress::StopReason;
use crate::protocol::{ErrorBody, FieldError};

/// Grace period after a timeout in which the handler of a queued request may clean up or return its output.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Grace period after a timeout for the handler of a quick request. It is short, because a client waits for the
/// response.
const QUICK_STOP_GRACE: Duration = Duration::from_millis(500);

/// Wraps a handler into a service, which becomes the innermost service of the layers around an action.
///
/// In the routing phase, the service checks the user's permission, and either runs the handler or asks the router to
/// queue the request. In the processing phase, the service runs the handler.
pub(crate) fn endpoint(handler: impl Handler) -> Next {
    let handler = Arc::new(handler);
    Next::new(service_fn(move |call| answer(Arc::clone(&handler), call)))
}

async fn answer<H: Handler>(handler: Arc<H>, call: Call) -> Result<Reply, CallError> {
    let Call { context, payload, phase, .. } = call;
    if let Phase::Routing(routing) = &phase
        && let Some(permission) = handler.required_permission()
    {
        routing.require(permission)?;
    }
    let input: H::Input = deserialize(&payload).map_err(CallError::refused)?;
    drop(payload);
    handler.validate(&input).map_err(|fields| CallError::refused(ErrorBody::invalid_fields(&fields)))?;
    let mut grace = STOP_GRACE;
    if let Phase::Routing(routing) = phase {
        grace = QUICK_STOP_GRACE;
        let estimated_duration = handler.estimated_duration(&input);
        if estimated_duration > routing.async_threshold {
            return Ok(Reply::Queue { estimated_duration });
        }
    }
    let output = process(&*handler, input, context, grace).await?;
    Ok(Reply::Done(serde_json::to_value(output).map_err(HandlerError::from)?))
}

/// Runs the handler, and stops it after its timeout and the `grace` period.
///
/// A handler can be stopped only where it awaits. A handler that never awaits runs until the router's timeout or the
/// end of the invocation.
async fn process<H: Handler>(
    handler: &H,
    input: H::Input,
    context: Context,
    grace: Duration,
) -> Result<H::Output, HandlerError> {
    let limit = handler.timeout(&input);
    // A timeout that is too long to be represented as an `Instant` never expires.
    let Some((limit, until)) = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)))
    else {
        return handler.process(input, context).await;
    };
    let progress = context.progress.clone();
    progress.end_by(until);
    let mut work = Box::pin(handler.process(input, context));
    if let Ok(result) = timeout_at(until, &mut work).await {
        return result;
    }
    progress.stop(StopReason::TimeLimitReached);
    let error = HandlerError::timed_out(format!("The request took longer than {}", format_seconds(limit)));
    match timeout(grace, work).await {
        // An output within the grace period is a success. An error is replaced by the timeout error, because the
        // handler may have returned it only as a reaction to being asked to stop.
        Ok(result) => result.map_err(|_| error),
        Err(_) => Err(error.with_source("handler did not stop within the grace period and was dropped")),
    }
}

fn format_seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}

fn deserialize<I: DeserializeOwned>(payload: &Value) -> Result<I, ErrorBody> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        ErrorBody::invalid_fields(&[FieldError::new(path, truncated(&error.inner().to_string()))])
    })
}

/// Shortens an error text of serde, which may quote a long value of the payload.
fn truncated(problem: &str) -> String {
    const MAX_CHARS: usize = 300;
    match problem.char_indices().nth(MAX_CHARS) {
        None => problem.to_owned(),
        Some((end, _)) => format!("{} …", &problem[..end]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::time::sleep;

    use super::*;
    use crate::handler::{Verdict, handler_fn};
    use crate::ids::ConnectionId;
    use crate::middleware::{CallErrorKind, Routing};
    use crate::ports::Timestamp;
    use crate::progress::ProgressReporter;
    use crate::protocol::ErrorCode;
    use crate::store::{Identity, Progress};

    fn context() -> Context {
        Context::new("work", "r1".into(), "ann".into(), "acme".into(), ConnectionId::from("c-ann"))
    }

    fn routing() -> Phase {
        let identity = Identity {
            user: "ann".into(),
            tenant: "acme".into(),
            permissions: Vec::new(),
            expires_at: Timestamp::from_secs(1),
        };
        Phase::Routing(Routing::new(identity, Timestamp::default()))
    }

    /// Runs a call of the handler. Returns the result and the duration of the call.
    async fn run(handler: impl Handler, phase: Phase) -> (Result<Reply, CallError>, Duration) {
        let began = Instant::now();
        let reply = endpoint(handler).run(Call::new(context(), json!(null), phase)).await;
        (reply.map_err(CallError::from), began.elapsed())
    }

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn handler_that_finishes_within_its_timeout_is_not_stopped() {
        let work = handler_fn(|(): (), context: Context| async move {
            let before = context.progress.remaining();
            sleep(LIMIT - Duration::from_millis(1)).await;
            Ok(json!([before, context.progress.stop_reason().is_none()]))
        });
        let (reply, took) = run(work.timeout(LIMIT), Phase::Processing).await;
        assert_eq!(reply.unwrap(), Reply::Done(json!([LIMIT, true])));
        assert_eq!(took, LIMIT - Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn handler_error_after_the_timeout_is_reported_as_a_timeout() {
        let seen_reason = Arc::new(Mutex::new(None));
        let handler_reason = Arc::clone(&seen_reason);
        let work = handler_fn(move |(): (), context: Context| {
            let seen_reason = Arc::clone(&handler_reason);
            async move {
                let reason = context.progress.stopped().await;
                sleep(Duration::from_secs(1)).await;
                *seen_reason.lock().unwrap() = Some(reason);
                context.progress.report(1.0, "late")?;
                Ok(())
            }
        });
        let (reply, took) = run(work.timeout(LIMIT), Phase::Processing).await;
        let error = reply.unwrap_err();
        assert_eq!((error.kind(), error.verdict()), (CallErrorKind::Refused, Verdict::TimedOut));
        assert_eq!(error.client_error().code, ErrorCode::Timeout);
        assert_eq!(error.client_error().message, "The request took longer than 2 s");
        assert!(!error.is_unexpected());
        assert_eq!(*seen_reason.lock().unwrap(), Some(StopReason::TimeLimitReached));
        assert_eq!(took, Duration::from_secs(3));

        let yields = handler_fn(|(): (), context: Context| async move {
            context.progress.stopped().await;
            Err::<(), _>(HandlerError::continue_later())
        });
        let (reply, _) = run(yields.timeout(LIMIT), Phase::Processing).await;
        assert_eq!(
            reply.unwrap_err().verdict(),
            Verdict::TimedOut,
            "a handler that yields after its timeout has timed out"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn output_that_a_handler_returns_within_the_grace_period_counts_as_success() {
        let work = handler_fn(|(): (), context: Context| async move {
            Ok(context.progress.stopped().await == StopReason::TimeLimitReached)
        });
        let (reply, took) = run(work.timeout(LIMIT), Phase::Processing).await;
        assert_eq!((reply.unwrap(), took), (Reply::Done(json!(true)), LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn handler_that_ignores_its_timeout_is_dropped_after_the_grace_period_and_logged() {
        let hang = || handler_fn(|(): (), _| async { std::future::pending::<Result<(), _>>().await });
        for (phase, grace) in [(Phase::Processing, STOP_GRACE), (routing(), QUICK_STOP_GRACE)] {
            let (reply, took) = run(hang().timeout(LIMIT), phase).await;
            let error = reply.unwrap_err();
            assert_eq!(
                (error.client_error().code.clone(), error.is_unexpected()),
                (ErrorCode::Timeout, true)
            );
            assert_eq!(took, LIMIT + grace);
        }
        let (reply, _) = run(hang().timeout(Duration::ZERO), Phase::Processing).await;
        assert_eq!(reply.unwrap_err().client_error().message, "The request took longer than 0 s");
    }

    #[tokio::test(start_paused = true)]
    async fn handler_timeout_of_duration_max_never_expires_and_no_timeout_extends_a_deadline() {
        let quick = handler_fn(|(): (), _| async { Ok(1) });
        assert_eq!(
            run(quick.timeout(Duration::MAX), Phase::Processing).await.0.unwrap(),
            Reply::Done(json!(1))
        );

        let (reporter, reports) = ProgressReporter::channel(Progress::default());
        reporter.end_by(Instant::now() + Duration::from_secs(1));
        let asks = handler_fn(|(): (), context: Context| async move { Ok(context.progress.remaining()) });
        let context = Context { progress: reporter, ..context() };
        let call = Call::new(context, json!(null), Phase::Processing);
        let reply = endpoint(asks.timeout(LIMIT)).run(call).await.unwrap();
        assert_eq!(reply, Reply::Done(json!(Duration::from_secs(1))));
        drop(reports);
    }

    #[tokio::test]
    async fn handler_fn_settings_decide_queueing_and_required_permission() {
        let slow = handler_fn(|(): (), _| async { Ok(()) }).estimated(Duration::from_secs(6));
        let (reply, _) = run(slow, routing()).await;
        assert_eq!(reply.unwrap(), Reply::Queue { estimated_duration: Duration::from_secs(6) });
        let guarded = handler_fn(|(): (), _| async { Ok(()) }).require("admin");
        assert_eq!(run(guarded, routing()).await.0.unwrap_err().client_error().code, ErrorCode::Forbidden);
    }
}
