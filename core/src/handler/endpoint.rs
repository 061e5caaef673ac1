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

/// How long a handler whose own time is up may take to clean up.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The same where somebody waits for the answer.
const QUICK_STOP_GRACE: Duration = Duration::from_millis(500);

/// Where every call ends: at a handler, which is asked what the call's phase wants to know.
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
    let input: H::Input = read(&payload).map_err(CallError::refused)?;
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

/// Has the handler do its work, for as long as it says that this may take.
///
/// It is stopped where it awaits. One that never does is left to whoever watches the call.
async fn process<H: Handler>(
    handler: &H,
    input: H::Input,
    context: Context,
    grace: Duration,
) -> Result<H::Output, HandlerError> {
    let limit = handler.timeout(&input);
    // What is too far off to be a moment is never reached.
    let Some((limit, until)) = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)))
    else {
        return handler.process(input, context).await;
    };
    let progress = context.progress.clone();
    progress.end_by(until);
    let mut work = Box::pin(handler.process(input, context));
    if let Ok(ended) = timeout_at(until, &mut work).await {
        return ended;
    }
    progress.stop(StopReason::TimeIsUp);
    let error = HandlerError::timed_out(format!("The request took longer than {}", shown(limit)));
    match timeout(grace, work).await {
        // What it has done in the moment that it had left counts; how it put that it had to stop does not.
        Ok(ended) => ended.map_err(|_| error),
        Err(_) => Err(error.with_source("the handler did not stop when it was told to, and was dropped")),
    }
}

fn shown(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}

fn read<I: DeserializeOwned>(payload: &Value) -> Result<I, ErrorBody> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        ErrorBody::invalid_fields(&[FieldError::new(path, shortened(&error.inner().to_string()))])
    })
}

/// What is wrong with a payload, without the whole payload in it: serde quotes what it found.
fn shortened(problem: &str) -> String {
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

    /// How a call of a handler that may take two seconds ends, and when.
    async fn ended(handler: impl Handler, phase: Phase) -> (Result<Reply, CallError>, Duration) {
        let began = Instant::now();
        let reply = endpoint(handler).run(Call::new(context(), json!(null), phase)).await;
        (reply.map_err(CallError::from), began.elapsed())
    }

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_handler_within_its_time_is_left_alone() {
        let work = handler_fn(|(): (), context: Context| async move {
            let before = context.progress.remaining();
            sleep(LIMIT - Duration::from_millis(1)).await;
            Ok(json!([before, context.progress.stop_reason().is_none()]))
        });
        let (reply, took) = ended(work.timeout(LIMIT), Phase::Processing).await;
        assert_eq!(reply.unwrap(), Reply::Done(json!([LIMIT, true])));
        assert_eq!(took, LIMIT - Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_time_is_up_is_told_and_however_it_puts_that_it_has_to_stop_has_timed_out() {
        let told = Arc::new(Mutex::new(None));
        let tells = Arc::clone(&told);
        let work = handler_fn(move |(): (), context: Context| {
            let told = Arc::clone(&tells);
            async move {
                let reason = context.progress.stopped().await;
                sleep(Duration::from_secs(1)).await;
                *told.lock().unwrap() = Some(reason);
                context.progress.report(1.0, "late")?;
                Ok(())
            }
        });
        let (reply, took) = ended(work.timeout(LIMIT), Phase::Processing).await;
        let error = reply.unwrap_err();
        assert_eq!((error.kind(), error.verdict()), (CallErrorKind::Refused, Verdict::TimedOut));
        assert_eq!(error.told().code, ErrorCode::Timeout);
        assert_eq!(error.told().message, "The request took longer than 2 s");
        assert!(!error.is_unexpected());
        assert_eq!(*told.lock().unwrap(), Some(StopReason::TimeIsUp));
        assert_eq!(took, Duration::from_secs(3));

        let yields = handler_fn(|(): (), context: Context| async move {
            context.progress.stopped().await;
            Err::<(), _>(HandlerError::go_on_later())
        });
        let (reply, _) = ended(yields.timeout(LIMIT), Phase::Processing).await;
        assert_eq!(
            reply.unwrap_err().verdict(),
            Verdict::TimedOut,
            "it would have its time anew, again and again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_handler_has_done_in_the_moment_that_it_had_left_counts() {
        let work = handler_fn(|(): (), context: Context| async move {
            Ok(context.progress.stopped().await == StopReason::TimeIsUp)
        });
        let (reply, took) = ended(work.timeout(LIMIT), Phase::Processing).await;
        assert_eq!((reply.unwrap(), took), (Reply::Done(json!(true)), LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_does_not_listen_is_dropped_after_a_moment_and_the_log_told() {
        let hang = || handler_fn(|(): (), _| async { std::future::pending::<Result<(), _>>().await });
        for (phase, grace) in [(Phase::Processing, STOP_GRACE), (routing(), QUICK_STOP_GRACE)] {
            let (reply, took) = ended(hang().timeout(LIMIT), phase).await;
            let error = reply.unwrap_err();
            assert_eq!((error.told().code.clone(), error.is_unexpected()), (ErrorCode::Timeout, true));
            assert_eq!(took, LIMIT + grace);
        }
        let (reply, _) = ended(hang().timeout(Duration::ZERO), Phase::Processing).await;
        assert_eq!(reply.unwrap_err().told().message, "The request took longer than 0 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_without_end_is_none_and_one_that_is_short_does_not_put_off_what_is_nearer() {
        let quick = handler_fn(|(): (), _| async { Ok(1) });
        assert_eq!(
            ended(quick.timeout(Duration::MAX), Phase::Processing).await.0.unwrap(),
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
    async fn a_function_is_queued_by_what_it_was_said_to_take() {
        let slow = handler_fn(|(): (), _| async { Ok(()) }).estimated(Duration::from_secs(6));
        let (reply, _) = ended(slow, routing()).await;
        assert_eq!(reply.unwrap(), Reply::Queue { estimated_duration: Duration::from_secs(6) });
        let guarded = handler_fn(|(): (), _| async { Ok(()) }).require("admin");
        assert_eq!(ended(guarded, routing()).await.0.unwrap_err().told().code, ErrorCode::Forbidden);
    }
}
