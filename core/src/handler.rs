//! What users write: a handler for each action.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    note = "implement `streamer::handler::Handler` for it, or wrap an async function: `handler_fn(|input: Input, context| async move {{ Ok(output) }})`"
)]
pub trait Handler: Send + Sync + 'static {
    /// What the payload is read into.
    type Input: DeserializeOwned + Send + 'static;
    /// What the client is answered with.
    type Output: Serialize + Send + 'static;

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

    /// Does the work.
    ///
    /// # Errors
    /// A [`HandlerError`], which says what the client is told.
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
    /// Where to say how far the work has come.
    pub progress: ProgressReporter,
}

/// Why a handler did not do what was asked, and what its client is told.
///
/// Any other error becomes one through `?`: its text goes to the log, and the client is told
/// `PROCESSING_FAILED` alone.
#[derive(Debug)]
pub struct HandlerError {
    told: ErrorBody,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HandlerError {
    /// A failure that the client is told of in these words.
    #[must_use]
    pub fn failure(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { told: ErrorBody::new(code.into(), message), source: None }
    }

    /// Adds a fact that the client is told.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.told = self.told.with_detail(key, value);
        self
    }

    /// Adds what caused it, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the client is told.
    #[must_use]
    pub fn told(&self) -> &ErrorBody {
        &self.told
    }

    pub(crate) const fn from_told(told: ErrorBody) -> Self {
        Self { told, source: None }
    }

    pub(crate) fn into_told(self) -> ErrorBody {
        self.told
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
        Self::from_told(ErrorBody::processing_failed()).with_source(error)
    }
}

/// Makes a handler of an async function.
///
/// ```
/// use serde_json::Value;
/// use streamer::handler::{Context, handler_fn};
///
/// let echo = handler_fn(|message: Value, _context: Context| async move { Ok(message) });
/// ```
pub fn handler_fn<F, I, O, Fut>(function: F) -> HandlerFn<F, I>
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    HandlerFn { function, input: PhantomData }
}

/// An async function as a [`Handler`]: see [`handler_fn`].
pub struct HandlerFn<F, I> {
    function: F,
    input: PhantomData<fn(I)>,
}

impl<F, I> fmt::Debug for HandlerFn<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerFn({})", std::any::type_name::<F>())
    }
}

impl<F, I, O, Fut> Handler for HandlerFn<F, I>
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    type Input = I;
    type Output = O;

    fn process(&self, input: I, context: Context) -> impl Future<Output = Result<O, HandlerError>> + Send {
        (self.function)(input, context)
    }
}

/// A request that a handler has accepted: how long it will take, and how to run it.
pub(crate) struct Accepted {
    pub(crate) estimated_duration: Duration,
    pub(crate) run: Run,
}

pub(crate) type Run = Box<dyn FnOnce(Context) -> Processing + Send>;
pub(crate) type Processing = Pin<Box<dyn Future<Output = Result<Value, HandlerError>> + Send>>;

/// A handler at work on the handlers' runtime; dropped, it is stopped, so that nothing is left running for nobody.
pub(crate) struct HandlerTask<T>(JoinHandle<T>);

impl<T: Send + 'static> HandlerTask<T> {
    pub(crate) fn spawn(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(runtime.spawn(work))
    }

    /// What came of it; an error is a panic.
    pub(crate) async fn ended(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }

    /// Stops it, unless it has ended, and waits until it has let go of everything.
    pub(crate) async fn stop(&mut self) {
        self.0.abort();
        if !self.0.is_finished() {
            let _ = (&mut self.0).await;
        }
    }
}

impl<T> Drop for HandlerTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A [`Handler`] whose types are forgotten, so that handlers of all types can stand in one map.
pub(crate) trait DynHandler: Send + Sync {
    fn accept(self: Arc<Self>, payload: &Value) -> Result<Accepted, ErrorBody>;
}

impl<H: Handler> DynHandler for H {
    fn accept(self: Arc<Self>, payload: &Value) -> Result<Accepted, ErrorBody> {
        let input: H::Input = serde_path_to_error::deserialize(payload).map_err(|error| {
            let path = match error.path().to_string() {
                path if path == "." => String::new(),
                path => path,
            };
            ErrorBody::invalid_fields(&[FieldError::new(path, shortened(&error.inner().to_string()))])
        })?;
        self.validate(&input).map_err(|fields| ErrorBody::invalid_fields(&fields))?;
        let estimated_duration = self.estimated_duration(&input);
        let run = move |context| -> Processing {
            Box::pin(async move {
                let output = self.process(input, context).await?;
                serde_json::to_value(output).map_err(HandlerError::from)
            })
        };
        Ok(Accepted { estimated_duration, run: Box::new(run) })
    }
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
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

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

    fn refusal(handler: impl Handler, payload: Value) -> ErrorBody {
        Arc::new(handler).accept(&payload).err().unwrap()
    }

    #[test]
    fn a_payload_of_the_wrong_type_is_refused_by_its_path() {
        let handler = || handler_fn(|_: Order, _| async { Ok(()) });
        let report = [
            refusal(handler(), json!({"lines": [{"quantity": 1}, {"quantity": "two"}]})),
            refusal(handler(), json!({"lines": {}})),
            refusal(handler(), json!({})),
            refusal(handler(), Value::Null),
        ]
        .map(|error| serde_json::to_string(&error).unwrap());
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn every_field_that_a_handler_refuses_is_named() {
        let error = refusal(Refuses, Value::Null);
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
