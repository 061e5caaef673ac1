//! Handlers: the code that processes the requests of an action.
//!
//! A handler is an async function of an input, or of an input and a [`Context`]:
//!
//! ```
//! use streamer::app::{App, RegisterError};
//! use streamer::handler::{Context, HandlerError};
//!
//! async fn greet(name: String, context: Context) -> Result<String, HandlerError> {
//!     Ok(format!("{} greets {name}", context.user))
//! }
//!
//! # fn app() -> Result<App, RegisterError> {
//! let mut app = App::new();
//! app.handle("greet", greet)?;
//! # Ok(app)
//! # }
//! # app().unwrap();
//! ```
//!
//! [`handler_fn`] adds fixed settings to a function, for example an estimated duration or a timeout. A type that
//! implements [`Handler`] can compute the duration and the timeout from each input, and can validate the input.
//!
//! Streamer processes a request in one of two ways. If the request's
//! [estimated duration](Handler::estimated_duration) is at most the router's threshold (default 5 s), the request is
//! *quick*. The router runs the handler, and sends the handler's output as the response. Otherwise the request is
//! *slow*. The router stores the request, the processor or the worker runs the handler later, and the client receives
//! progress and result frames. Each run of a slow request is an *attempt*. If an attempt fails, the handler's
//! [`RetryPolicy`] decides about another attempt.

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

/// The code that processes the requests of one action.
///
/// This handler validates its input, estimates its duration and reports progress:
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
/// A Lambda invocation lasts at most 15 minutes. A handler that needs longer saves
/// [checkpoints](ProgressReporter::checkpoint), and continues from its last checkpoint in a new invocation. A handler
/// that calls a service decides by the kind of error which failures are retried:
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
///                 return Err(HandlerError::continue_later());
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
    message = "`{Self}` does not implement `Handler`",
    label = "`Handler` is not implemented for this type",
    note = "implement `streamer::handler::Handler` for the type, or wrap an async function in `handler_fn`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Type of the input, into which the payload of a request is deserialized.
    type Input: DeserializeOwned + Send + 'static;
    /// Type of the output, which is serialized and sent to the client.
    type Output: Serialize + Send + 'static;

    /// Returns the permission that a user's token must grant for this handler. Default `None`, which requires no
    /// permission.
    ///
    /// The router checks the permission when a message arrives, before it deserializes the payload. A user who lacks
    /// the permission receives the error `FORBIDDEN`. A queued request runs even if the user's token has expired by
    /// then.
    fn required_permission(&self) -> Option<&str> {
        None
    }

    /// Validates the input, before the request is queued and before each run of the handler. By default every input
    /// is valid.
    ///
    /// # Errors
    /// A list of the invalid fields, if there are any. The client receives the whole list in one `VALIDATION_ERROR`.
    fn validate(&self, input: &Self::Input) -> Result<(), Vec<FieldError>> {
        let _ = input;
        Ok(())
    }

    /// Returns the time that processing this input is expected to take. Default zero.
    ///
    /// If the estimate exceeds the router's threshold (default 5 s), the request is queued. Otherwise the router runs
    /// the handler immediately, and sends the handler's output as the response.
    fn estimated_duration(&self, input: &Self::Input) -> Duration {
        let _ = input;
        Duration::ZERO
    }

    /// Returns the maximum duration of one run of the handler. Default `None`, which allows the rest of the
    /// invocation.
    ///
    /// The timeout applies to each invocation separately, if a request continues in a new invocation. When the
    /// timeout expires, the handler is [asked to stop](ProgressReporter::stopped). It then has a grace period to
    /// clean up: 5 s for a queued request, 0.5 s for a quick request.
    ///
    /// If the handler returns an output within the grace period, the request succeeds. Otherwise the attempt has
    /// timed out. The request is then retried if its [policy](RetryPolicy::retries_timeouts) allows retries after
    /// timeouts, or fails with `TIMEOUT`. A handler that never awaits cannot be stopped before its invocation ends.
    fn timeout(&self, input: &Self::Input) -> Option<Duration> {
        let _ = input;
        None
    }

    /// Returns the policy that decides when and how often a failed queued request is retried. Quick requests are
    /// never retried.
    ///
    /// This method is called once, when the handler is registered.
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Processes a request.
    ///
    /// # Errors
    /// A [`HandlerError`] if the request failed. It contains the error for the client, and decides whether the
    /// request is retried.
    fn process(
        &self,
        input: Self::Input,
        context: Context,
    ) -> impl Future<Output = Result<Self::Output, HandlerError>> + Send;
}

/// Facts about the request that a handler processes, such as its id, user and attempt, and the handler's
/// [`ProgressReporter`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Id of the request that is processed, chosen by the client.
    pub request_id: RequestId,
    /// Name of the requested action, such as `echo`.
    pub action: String,
    /// User who sent the request.
    pub user: UserId,
    /// Tenant of the user who sent the request.
    pub tenant: TenantId,
    /// WebSocket connection over which the request arrived.
    pub connection: ConnectionId,
    /// Key-value pairs that the client sent with the request.
    pub metadata: BTreeMap<String, String>,
    /// Number of the current attempt, from 1; always 1 for a quick request.
    pub attempt: u32,
    /// Number of times that the request has continued from a checkpoint in a new invocation.
    pub continuations: u32,
    /// Interface to report progress, to save checkpoints, and to learn that the handler must stop.
    pub progress: ProgressReporter,
    /// Last saved checkpoint of the request, which [`checkpoint`](Self::checkpoint) returns; `None` if there is no
    /// checkpoint.
    pub(crate) checkpoint: Option<Arc<Value>>,
}

impl Context {
    /// Creates the context of a first attempt, without metadata and without a checkpoint, for tests of handlers.
    ///
    /// Progress reports of this context are validated and then discarded, as for a quick request.
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

    /// Returns the last state that an earlier invocation or attempt of the request
    /// [saved](ProgressReporter::checkpoint); `None` if there is no checkpoint.
    ///
    /// # Errors
    /// A [fatal](HandlerError::fatal) error if the saved state cannot be deserialized into `T`, for example because a
    /// deployment has changed this type.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, HandlerError> {
        let Some(saved) = &self.checkpoint else { return Ok(None) };
        serde_path_to_error::deserialize(saved.as_ref())
            .map(Some)
            .map_err(|error| HandlerError::from(error).fatal())
    }

    /// Sets the checkpoint that [`checkpoint`](Self::checkpoint) returns, for tests of handlers.
    #[must_use]
    pub fn with_checkpoint(mut self, state: Value) -> Self {
        self.checkpoint = Some(Arc::new(state));
        self
    }
}

/// The error that a handler returns. It contains the error for the client, and decides whether the request is
/// retried.
///
/// | created by | error that the client receives | retried |
/// |---|---|---|
/// | `?` on an error of another type | `PROCESSING_FAILED`, without the cause | yes |
/// | [`failure`](Self::failure) | the given code and message | no |
/// | [`retryable`](Self::retryable) | the given code and message, after the last attempt | yes |
/// | [`continue_later`](Self::continue_later) | none | no: the request continues from its checkpoint |
#[derive(Debug)]
pub struct HandlerError {
    client_error: ErrorBody,
    verdict: Verdict,
    source: Option<BoxError>,
}

/// The decision whether the request of a failed attempt is retried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The request is not retried, because another attempt would fail too.
    Final,
    /// The request is retried, because another attempt may succeed. The contained duration is the minimum wait before
    /// the retry; `None` leaves the wait to the retry policy alone.
    Retryable(Option<Duration>),
    /// The attempt exceeded its time limit. The retry policy decides whether the request is retried.
    TimedOut,
    /// The attempt did not fail. The request continues from its checkpoint in a new invocation.
    Yielded,
}

impl HandlerError {
    /// Creates a final failure, which is not retried. The client receives this code and message.
    #[must_use]
    pub fn failure(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { client_error: ErrorBody::new(code.into(), message), verdict: Verdict::Final, source: None }
    }

    /// Creates a failure that is retried. The client receives this code and message only if the last attempt fails.
    #[must_use]
    pub fn retryable(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Retryable(None), ..Self::failure(code, message) }
    }

    /// Asks Streamer to run the handler again in a new invocation, from its last
    /// [checkpoint](ProgressReporter::checkpoint).
    ///
    /// A handler returns this value when little of its [time](ProgressReporter::remaining) remains. The new
    /// invocation continues the same attempt, so it does not use up one of the request's attempts. If the request is
    /// quick, or has no checkpoint, this value is an ordinary failure.
    #[must_use]
    pub fn continue_later() -> Self {
        Self { client_error: ErrorBody::processing_failed(), verdict: Verdict::Yielded, source: None }
    }

    /// Makes the failure final: the request is not retried.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self { verdict: Verdict::Final, ..self }
    }

    /// Makes the failure retryable, with a wait of at least `wait` before the next attempt. A `wait` above 24 hours
    /// counts as 24 hours.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { verdict: Verdict::Retryable(Some(wait.min(RetryPolicy::MAX_CAP))), ..self }
    }

    /// Creates the `TIMEOUT` error for an attempt that exceeded its time limit.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::TimedOut, ..Self::failure(ErrorCode::Timeout, message) }
    }

    /// Adds an entry to the `details` of the error that the client receives.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.client_error = self.client_error.with_detail(key, value);
        self
    }

    /// Adds the cause of the error. The cause is logged, and is never sent to the client.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the error that the client receives.
    #[must_use]
    pub fn client_error(&self) -> &ErrorBody {
        &self.client_error
    }

    pub(crate) fn into_parts(self) -> (ErrorBody, Verdict, Option<BoxError>) {
        (self.client_error, self.verdict, self.source)
    }
}

/// Formats the error together with its causes, for logs.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.client_error.code, self.client_error.message)?;
        match &self.source {
            Some(source) => write!(f, ": {}", Causes(source.as_ref())),
            None => Ok(()),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self {
            client_error: ErrorBody::processing_failed(),
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
        #[expect(dead_code, reason = "the test needs only the type of the field")]
        lines: Vec<Line>,
    }

    #[derive(Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "the test needs only the type of the field")]
        quantity: u32,
    }

    struct RejectsAll;

    impl Handler for RejectsAll {
        type Input = Value;
        type Output = ();

        fn validate(&self, _: &Value) -> Result<(), Vec<FieldError>> {
            Err(vec![FieldError::new("a", "is wrong"), FieldError::new("b", "is wrong too")])
        }

        async fn process(&self, _: Value, _: Context) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    async fn call_error(handler: impl Handler, payload: Value) -> ErrorBody {
        let context =
            Context::new("order", "r1".into(), "ann".into(), "acme".into(), ConnectionId::from("c-ann"));
        let call = Call::new(context, payload, Phase::Processing);
        CallError::from(endpoint(handler).run(call).await.unwrap_err()).into_client_error()
    }

    #[tokio::test]
    async fn payload_that_does_not_match_the_input_type_is_rejected_with_the_field_path() {
        let handler = || handler_fn(|_: Order, _| async { Ok(()) });
        let mut report = Vec::new();
        for payload in [
            json!({"lines": [{"quantity": 1}, {"quantity": "two"}]}),
            json!({"lines": {}}),
            json!({}),
            Value::Null,
        ] {
            report.push(serde_json::to_string(&call_error(handler(), payload).await).unwrap());
        }
        insta::assert_snapshot!(report.join("\n"), @r#"
        {"code":"VALIDATION_ERROR","message":"lines[1].quantity: invalid type: string \"two\", expected u32","details":{"fields":[{"path":"lines[1].quantity","message":"invalid type: string \"two\", expected u32"}]}}
        {"code":"VALIDATION_ERROR","message":"lines: invalid type: map, expected a sequence","details":{"fields":[{"path":"lines","message":"invalid type: map, expected a sequence"}]}}
        {"code":"VALIDATION_ERROR","message":"payload: missing field `lines`","details":{"fields":[{"path":"","message":"missing field `lines`"}]}}
        {"code":"VALIDATION_ERROR","message":"payload: invalid type: null, expected struct Order","details":{"fields":[{"path":"","message":"invalid type: null, expected struct Order"}]}}
        "#);
    }

    #[tokio::test]
    async fn validation_error_names_every_field_that_the_handler_rejected() {
        let error = call_error(RejectsAll, Value::Null).await;
        assert_eq!(error.code, ErrorCode::ValidationError);
        assert_eq!(error.message, "a: is wrong; b: is wrong too");
        assert_eq!(error.details["fields"][1], json!({"path": "b", "message": "is wrong too"}));
    }

    #[test]
    fn error_source_is_in_the_log_text_and_not_in_the_client_error() {
        let error: HandlerError = "x".parse::<u32>().unwrap_err().into();
        assert_eq!(error.client_error().code, ErrorCode::ProcessingFailed);
        assert_eq!(error.client_error().message, "The request could not be processed");
        assert!(error.to_string().ends_with("invalid digit found in string"), "{error}");

        let error =
            HandlerError::failure("CARD_DECLINED", "The card was declined").with_detail("retry", false);
        assert_eq!(error.client_error().details["retry"], json!(false));
        assert_eq!(error.to_string(), "CARD_DECLINED: The card was declined");
    }
}
