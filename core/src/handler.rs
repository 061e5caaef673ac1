//! What users write: a handler for each action.

mod endpoint;
mod function;
mod retry;
mod runtime;
mod task;

pub use function::{HandlerFn, IntoHandler, handler_fn};
pub use retry::RetryPolicy;
#[doc(hidden)]
pub use runtime::HandlerRuntime;

pub(crate) use endpoint::endpoint;
pub(crate) use task::{HandlerTask, handlers_runtime};

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::BoxError;

use crate::ids::{ConnectionId, RequestId, TenantId, UserId};
use crate::progress::ProgressReporter;
use crate::protocol::{ErrorBody, ErrorCode, FieldError};
use crate::telemetry::Causes;

/// Processes the requests of one action.
///
/// ```
/// use std::time::Duration;
/// use serde::{Deserialize, Serialize};
/// use streamer::handler::{Context, Handler, HandlerError};
/// use streamer::protocol::FieldError;
///
/// #[derive(Deserialize)]
/// struct Order { rows: u32 }
///
/// #[derive(Serialize)]
/// struct Sum { total: u64 }
///
/// struct SumUp;
///
/// impl Handler for SumUp {
///     type Input = Order;
///     type Output = Sum;
///
///     fn validate(&self, order: &Order) -> Result<(), Vec<FieldError>> {
///         if order.rows == 0 { Err(vec![FieldError::new("rows", "must be at least 1")]) } else { Ok(()) }
///     }
///
///     fn estimated_duration(&self, order: &Order) -> Duration {
///         Duration::from_millis(10) * order.rows
///     }
///
///     async fn process(&self, order: Order, context: Context) -> Result<Sum, HandlerError> {
///         let mut total = 0;
///         for row in 0..order.rows {
///             total += u64::from(row);
///             context.progress.report(f64::from(row) / f64::from(order.rows) * 100.0, "Adding")?;
///         }
///         Ok(Sum { total })
///     }
/// }
/// ```
///
/// What takes hours goes on from [checkpoints](ProgressReporter::checkpoint), since no invocation lasts longer than 15
/// minutes; what calls others says which of their failures are worth another attempt:
///
/// ```
/// use std::time::Duration;
/// use serde::{Deserialize, Serialize};
/// use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
///
/// #[derive(Default, Deserialize, Serialize)]
/// struct Done { pages: u32 }
///
/// struct Import;
///
/// impl Handler for Import {
///     type Input = u32;
///     type Output = Done;
///
///     fn estimated_duration(&self, pages: &u32) -> Duration {
///         Duration::from_mins(1) * *pages
///     }
///
///     fn retry_policy(&self) -> RetryPolicy {
///         RetryPolicy::attempts(5).base(Duration::from_secs(30))
///     }
///
///     async fn process(&self, pages: u32, context: Context) -> Result<Done, HandlerError> {
///         let mut done: Done = context.checkpoint()?.unwrap_or_default();
///         while done.pages < pages {
///             if context.progress.remaining() < Duration::from_mins(2) {
///                 return Err(HandlerError::go_on_later());
///             }
///             import(done.pages).await?;
///             done.pages += 1;
///             context.progress.checkpoint(&done).await?;
///             let percentage = f64::from(done.pages) / f64::from(pages) * 100.0;
///             context.progress.report(percentage, "Importing")?;
///         }
///         Ok(done)
///     }
/// }
///
/// async fn import(page: u32) -> Result<(), HandlerError> {
///     match page {
///         13 => Err(HandlerError::failure("NO_SUCH_PAGE", "There is no page 13")),
///         42 => {
///             let busy = HandlerError::retryable("SOURCE_BUSY", "The source is busy");
///             Err(busy.retry_after(Duration::from_secs(60)))
///         }
///         _ => Ok(()),
///     }
/// }
/// # let context = Context::new("import", "r1".into(), "ann".into(), "acme".into(), "c1".into());
/// # let context = context.with_checkpoint(serde_json::json!({"pages": 2}));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # assert_eq!(runtime.block_on(Import.process(5, context)).unwrap().pages, 5);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Handler`",
    label = "`Handler` is not implemented for this",
    note = "implement `streamer::handler::Handler` for it, or make one of an async function with `handler_fn`"
)]
pub trait Handler: Send + Sync + 'static {
    /// What the payload is read into.
    type Input: DeserializeOwned + Send + 'static;
    /// What the client is answered with.
    type Output: Serialize + Send + 'static;

    /// The permission that a user's token must grant, if any. Default none.
    ///
    /// It is asked for when the message comes, before the payload is read: who lacks it is answered `FORBIDDEN`.
    /// What has been queued is run, whatever becomes of its user's token.
    fn required_permission(&self) -> Option<&str> {
        None
    }

    /// Says what is wrong with the input, field by field, before anything is queued or run.
    ///
    /// # Errors
    /// The fields that are wrong: their client gets them in one `VALIDATION_ERROR`.
    fn validate(&self, input: &Self::Input) -> Result<(), Vec<FieldError>> {
        let _ = input;
        Ok(())
    }

    /// How long processing this input is expected to take. Above the router's threshold (default 5 s) the
    /// request is queued; else it is answered at once. Default zero.
    fn estimated_duration(&self, input: &Self::Input) -> Duration {
        let _ = input;
        Duration::ZERO
    }

    /// How long one run may take, from its start to its end, or to where it goes on in a fresh invocation. Default as long as
    /// its invocation lasts.
    ///
    /// Then it is [told](ProgressReporter::stopped) to stop, and has a moment to clean up: 5 s, or half a second where a client
    /// waits for the answer. If it has nothing to show by then, its request is tried again as its
    /// [policy](RetryPolicy::retries_timeouts) says, or ends with `TIMEOUT`, whatever error it returns. A handler that never
    /// awaits is stopped with its invocation alone.
    fn timeout(&self, input: &Self::Input) -> Option<Duration> {
        let _ = input;
        None
    }

    /// When a queued request that failed is tried again. Quick requests never are. It is asked once, when the handler is
    /// registered.
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Does the work.
    ///
    /// # Errors
    /// A [`HandlerError`], which says what the client is told, and whether the work is worth another attempt.
    fn process(
        &self,
        input: Self::Input,
        context: Context,
    ) -> impl Future<Output = Result<Self::Output, HandlerError>> + Send;
}

/// What a handler knows of the request that it processes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// As its client names it.
    pub request_id: RequestId,
    /// What is asked for.
    pub action: String,
    /// Whose request it is.
    pub user: UserId,
    /// In which tenant.
    pub tenant: TenantId,
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// What its client sent along.
    pub metadata: BTreeMap<String, String>,
    /// Which attempt this is, from 1; quick requests have one.
    pub attempt: u32,
    /// How often the request has gone on from a checkpoint in a fresh invocation.
    pub continuations: u32,
    /// Where to say how far the work has come.
    pub progress: ProgressReporter,
    /// What was saved last: see [`checkpoint`](Self::checkpoint).
    pub(crate) checkpoint: Option<Arc<Value>>,
}

impl Context {
    /// The context of a first attempt, without metadata, whose reports go nowhere: as a quick request has it, and as
    /// a test of a handler needs it.
    #[must_use]
    pub fn new(
        action: impl Into<String>,
        request_id: RequestId,
        user: UserId,
        tenant: TenantId,
        connection: ConnectionId,
    ) -> Self {
        Self {
            request_id,
            action: action.into(),
            user,
            tenant,
            connection,
            metadata: BTreeMap::new(),
            attempt: 1,
            continuations: 0,
            progress: ProgressReporter::disconnected(),
            checkpoint: None,
        }
    }

    /// What was [saved](ProgressReporter::checkpoint) last, in an earlier invocation or attempt: what to go on from, if
    /// there is anything.
    ///
    /// # Errors
    /// When it is no `T`, as after a deployment that changed the type: a failure that another attempt does not mend.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, HandlerError> {
        let Some(saved) = &self.checkpoint else { return Ok(None) };
        serde_path_to_error::deserialize(saved.as_ref())
            .map(Some)
            .map_err(|error| HandlerError::from(error).fatal())
    }

    /// The same context, as it goes on from `state`: for tests of handlers.
    #[must_use]
    pub fn with_checkpoint(mut self, state: Value) -> Self {
        self.checkpoint = Some(Arc::new(state));
        self
    }
}

/// Why a handler did not do what was asked, what its client is told, and whether another attempt is worth it.
///
/// | made by | client is told | another attempt |
/// |---|---|---|
/// | `?`, of any other error | `PROCESSING_FAILED` alone | yes |
/// | [`failure`](Self::failure) | what it says | no |
/// | [`retryable`](Self::retryable) | what it says, once no attempt is left | yes |
/// | [`go_on_later`](Self::go_on_later) | nothing | goes on from its checkpoint |
#[derive(Debug)]
pub struct HandlerError {
    told: ErrorBody,
    verdict: Verdict,
    source: Option<BoxError>,
}

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Another attempt would find it no better.
    Final,
    /// Another attempt may succeed: not before this time has passed, if it is given, else when the policy says.
    Retryable(Option<Duration>),
    /// It took longer than it may: the policy says whether it is tried again.
    TimedOut,
    /// It is no failure: the work goes on from its checkpoint in a fresh invocation.
    Yielded,
}

impl HandlerError {
    /// A failure for good, that the client is told of in these words.
    #[must_use]
    pub fn failure(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { told: ErrorBody::new(code.into(), message), verdict: Verdict::Final, source: None }
    }

    /// A failure that another attempt may mend; if none is left, the client is told of it in these words.
    #[must_use]
    pub fn retryable(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Retryable(None), ..Self::failure(code, message) }
    }

    /// No failure: the handler has saved a [checkpoint](ProgressReporter::checkpoint), and is to be run again from there in a
    /// fresh invocation, without using up an attempt.
    ///
    /// Returned by a handler that sees its [time](ProgressReporter::remaining) run out. Of a quick request, or without a
    /// checkpoint, it is a failure.
    #[must_use]
    pub fn go_on_later() -> Self {
        Self { told: ErrorBody::processing_failed(), verdict: Verdict::Yielded, source: None }
    }

    /// The same failure, that another attempt would not mend.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self { verdict: Verdict::Final, ..self }
    }

    /// The same failure, that another attempt may mend, but not before `wait` has passed, which is 24 hours at most.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { verdict: Verdict::Retryable(Some(wait.min(RetryPolicy::MAX_CAP))), ..self }
    }

    /// What took longer than it may.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::TimedOut, ..Self::failure(ErrorCode::Timeout, message) }
    }

    /// Adds a fact that the client is told.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.told = self.told.with_detail(key, value);
        self
    }

    /// Adds what caused it, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the client is told.
    #[must_use]
    pub fn told(&self) -> &ErrorBody {
        &self.told
    }

    pub(crate) fn into_parts(self) -> (ErrorBody, Verdict, Option<BoxError>) {
        (self.told, self.verdict, self.source)
    }
}

/// What the log says.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.told.code, self.told.message)?;
        match &self.source {
            Some(source) => write!(f, ": {}", Causes(source.as_ref())),
            None => Ok(()),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self {
            told: ErrorBody::processing_failed(),
            verdict: Verdict::Retryable(None),
            source: Some(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::middleware::{Call, CallError, Phase};

    #[derive(Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only its type matters here")]
        lines: Vec<Line>,
    }

    #[derive(Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only its type matters here")]
        quantity: u32,
    }

    struct Refuses;

    impl Handler for Refuses {
        type Input = Value;
        type Output = ();

        fn validate(&self, _: &Value) -> Result<(), Vec<FieldError>> {
            Err(vec![FieldError::new("a", "is wrong"), FieldError::new("b", "as well")])
        }

        async fn process(&self, _: Value, _: Context) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    async fn refusal(handler: impl Handler, payload: Value) -> ErrorBody {
        let context =
            Context::new("order", "r1".into(), "ann".into(), "acme".into(), ConnectionId::from("c-ann"));
        let call = Call::new(context, payload, Phase::Processing);
        CallError::from(endpoint(handler).run(call).await.unwrap_err()).into_told()
    }

    #[tokio::test]
    async fn a_payload_of_the_wrong_type_is_refused_by_its_path() {
        let handler = || handler_fn(|_: Order, _| async { Ok(()) });
        let mut report = Vec::new();
        for payload in [
            json!({"lines": [{"quantity": 1}, {"quantity": "two"}]}),
            json!({"lines": {}}),
            json!({}),
            Value::Null,
        ] {
            report.push(serde_json::to_string(&refusal(handler(), payload).await).unwrap());
        }
        insta::assert_snapshot!(report.join("\n"), @r#"
        {"code":"VALIDATION_ERROR","message":"lines[1].quantity: invalid type: string \"two\", expected u32","details":{"fields":[{"path":"lines[1].quantity","message":"invalid type: string \"two\", expected u32"}]}}
        {"code":"VALIDATION_ERROR","message":"lines: invalid type: map, expected a sequence","details":{"fields":[{"path":"lines","message":"invalid type: map, expected a sequence"}]}}
        {"code":"VALIDATION_ERROR","message":"payload: missing field `lines`","details":{"fields":[{"path":"","message":"missing field `lines`"}]}}
        {"code":"VALIDATION_ERROR","message":"payload: invalid type: null, expected struct Order","details":{"fields":[{"path":"","message":"invalid type: null, expected struct Order"}]}}
        "#);
    }

    #[tokio::test]
    async fn every_field_that_a_handler_refuses_is_named() {
        let error = refusal(Refuses, Value::Null).await;
        assert_eq!(error.code, ErrorCode::ValidationError);
        assert_eq!(error.message, "a: is wrong; b: as well");
        assert_eq!(error.details["fields"][1], json!({"path": "b", "message": "as well"}));
    }

    #[test]
    fn the_client_is_told_the_failure_and_the_log_its_causes() {
        let error: HandlerError = "x".parse::<u32>().unwrap_err().into();
        assert_eq!(error.told().code, ErrorCode::ProcessingFailed);
        assert_eq!(error.told().message, "The request could not be processed");
        assert!(error.to_string().ends_with("invalid digit found in string"), "{error}");

        let error =
            HandlerError::failure("CARD_DECLINED", "The card was declined").with_detail("retry", false);
        assert_eq!(error.told().details["retry"], json!(false));
        assert_eq!(error.to_string(), "CARD_DECLINED: The card was declined");
    }
}
