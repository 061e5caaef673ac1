use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Handler, HandlerError, RetryPolicy};

/// Creates a handler from an async function or closure of an input and a [`Context`].
///
/// [`App::handle`](crate::app::App::handle) also accepts an async function directly. Use `handler_fn` in these cases:
///
/// - to set an estimated duration, a timeout, a retry policy or a required permission;
/// - for a closure, so that the compiler can infer the type of its `Context` argument;
/// - to find out why the compiler rejects a function as a handler, because with `handler_fn` the compiler reports each
///   unmet requirement separately.
///
/// ```
/// use std::time::Duration;
/// use serde_json::Value;
/// use streamer::handler::{Context, HandlerError, RetryPolicy, handler_fn};
///
/// let echo = handler_fn(|message: Value, _| async move { Ok(message) });
///
/// async fn render(page: u32, context: Context) -> Result<String, HandlerError> {
///     context.progress.report(50.0, "Rendering")?;
///     Ok(format!("page {page}"))
/// }
///
/// // The estimate exceeds the default threshold of 5 s, so that the requests are queued.
/// let render = handler_fn(render)
///     .estimated(Duration::from_secs(20))
///     .timeout(Duration::from_mins(2))
///     .retry(RetryPolicy::attempts(5).base(Duration::from_secs(10)));
/// # let mut app = streamer::app::App::new();
/// # app.handle("echo", echo).unwrap().handle("render", render).unwrap();
/// ```
pub fn handler_fn<F, I, O, Fut>(function: F) -> HandlerFn<F, fn(I, Context)>
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    HandlerFn::new(function)
}

/// A [`Handler`] that calls an async function, created by [`handler_fn`]. The type parameter `Args` is the list of
/// the function's argument types.
pub struct HandlerFn<F, Args> {
    function: F,
    settings: Settings,
    arguments: PhantomData<Args>,
}

/// The values that the methods of [`Handler`] return for a `HandlerFn`.
#[derive(Clone, Debug, Default)]
struct Settings {
    permission: Option<String>,
    estimated: Duration,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

impl<F, Args> HandlerFn<F, Args> {
    fn new(function: F) -> Self {
        Self { function, settings: Settings::default(), arguments: PhantomData }
    }

    /// Sets the estimated duration of the handler for all inputs. Default zero. See [`Handler::estimated_duration`].
    #[must_use]
    pub fn estimated(mut self, duration: Duration) -> Self {
        self.settings.estimated = duration;
        self
    }

    /// Sets the maximum duration of one run of the handler. Default: the rest of the invocation. See
    /// [`Handler::timeout`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = Some(limit);
        self
    }

    /// Sets the policy for retries of failed queued requests. Default [`RetryPolicy::default`]. See
    /// [`Handler::retry_policy`].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets the permission that a user's token must grant. By default no permission is required. See
    /// [`Handler::required_permission`].
    #[must_use]
    pub fn require(mut self, permission: impl Into<String>) -> Self {
        self.settings.permission = Some(permission.into());
        self
    }
}

impl<F, Args> fmt::Debug for HandlerFn<F, Args> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerFn({})", std::any::type_name::<F>())
    }
}

impl<F, I, O, Fut> Handler for HandlerFn<F, fn(I, Context)>
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    type Input = I;
    type Output = O;

    fn required_permission(&self) -> Option<&str> {
        self.settings.permission.as_deref()
    }

    fn estimated_duration(&self, _: &I) -> Duration {
        self.settings.estimated
    }

    fn timeout(&self, _: &I) -> Option<Duration> {
        self.settings.timeout
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.settings.retry.clone()
    }

    fn process(&self, input: I, context: Context) -> impl Future<Output = Result<O, HandlerError>> + Send {
        (self.function)(input, context)
    }
}

impl<F, I, O, Fut> Handler for HandlerFn<F, fn(I)>
where
    F: Fn(I) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    type Input = I;
    type Output = O;

    fn required_permission(&self) -> Option<&str> {
        self.settings.permission.as_deref()
    }

    fn estimated_duration(&self, _: &I) -> Duration {
        self.settings.estimated
    }

    fn timeout(&self, _: &I) -> Option<Duration> {
        self.settings.timeout
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.settings.retry.clone()
    }

    fn process(&self, input: I, _: Context) -> impl Future<Output = Result<O, HandlerError>> + Send {
        (self.function)(input)
    }
}

/// A value that [`App::handle`](crate::app::App::handle) accepts as a handler: a [`Handler`], an async function of an
/// input, or an async function of an input and a [`Context`].
///
/// The type parameter `Kind` distinguishes these three cases. The compiler infers it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected a type that implements `Handler`, or an async function",
    note = "a struct is a handler if it implements `streamer::handler::Handler`",
    note = "an async function is a handler if it is `async fn(Input) -> Result<Output, HandlerError>` or \
            `async fn(Input, Context) -> Result<Output, HandlerError>`, `Input` is owned and implements \
            `serde::Deserialize`, `Output` implements `serde::Serialize`, and nothing that is not `Send` lives across \
            an await",
    note = "to see which requirement a function of `Input` and `Context` does not meet, wrap the function in \
            `streamer::handler::handler_fn(…)`"
)]
pub trait IntoHandler<Kind> {
    /// Type of the resulting handler.
    type Handler: Handler;

    /// Converts the value into a handler.
    fn into_handler(self) -> Self::Handler;
}

/// The `Kind` of [`IntoHandler`] for types that implement [`Handler`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Itself;

impl<H: Handler> IntoHandler<Itself> for H {
    type Handler = Self;

    fn into_handler(self) -> Self {
        self
    }
}

impl<F, I, O, Fut> IntoHandler<fn(I, Context)> for F
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    type Handler = HandlerFn<F, fn(I, Context)>;

    fn into_handler(self) -> Self::Handler {
        HandlerFn::new(self)
    }
}

impl<F, I, O, Fut> IntoHandler<fn(I)> for F
where
    F: Fn(I) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    type Handler = HandlerFn<F, fn(I)>;

    fn into_handler(self) -> Self::Handler {
        HandlerFn::new(self)
    }
}
