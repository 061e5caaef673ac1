use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Handler, HandlerError, RetryPolicy};

/// Makes a handler of an async function or closure of an input and a [`Context`].
///
/// [`App::handle`](crate::app::App::handle) takes an async function as it is. This is for closures, whose
/// argument types the compiler then needs not be told twice; for functions that are slow, may take only so long, or
/// are to be tried again in another way than others; and for finding out what is wrong with a function that
/// is not taken: each requirement is checked, and reported, on its own.
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
/// // Expected to take longer than 5 s, and so queued.
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

/// An async function as a [`Handler`]; `Args` are its arguments. Made by [`handler_fn`].
pub struct HandlerFn<F, Args> {
    function: F,
    said: Said,
    arguments: PhantomData<Args>,
}

/// What a function cannot say of itself.
#[derive(Clone, Debug, Default)]
struct Said {
    permission: Option<String>,
    estimated: Duration,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

impl<F, Args> HandlerFn<F, Args> {
    fn new(function: F) -> Self {
        Self { function, said: Said::default(), arguments: PhantomData }
    }

    /// How long it is expected to take, whatever its input: see [`Handler::estimated_duration`]. Default zero.
    #[must_use]
    pub fn estimated(mut self, duration: Duration) -> Self {
        self.said.estimated = duration;
        self
    }

    /// How long one run of it may take: see [`Handler::timeout`]. Default as long as its invocation lasts.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.said.timeout = Some(limit);
        self
    }

    /// When a queued request that failed is tried again: see [`Handler::retry_policy`].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.said.retry = policy;
        self
    }

    /// The permission that a user's token must grant: see [`Handler::required_permission`]. Default none.
    #[must_use]
    pub fn require(mut self, permission: impl Into<String>) -> Self {
        self.said.permission = Some(permission.into());
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
        self.said.permission.as_deref()
    }

    fn estimated_duration(&self, _: &I) -> Duration {
        self.said.estimated
    }

    fn timeout(&self, _: &I) -> Option<Duration> {
        self.said.timeout
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.said.retry.clone()
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
        self.said.permission.as_deref()
    }

    fn estimated_duration(&self, _: &I) -> Duration {
        self.said.estimated
    }

    fn timeout(&self, _: &I) -> Option<Duration> {
        self.said.timeout
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.said.retry.clone()
    }

    fn process(&self, input: I, _: Context) -> impl Future<Output = Result<O, HandlerError>> + Send {
        (self.function)(input)
    }
}

/// What [`App::handle`](crate::app::App::handle) takes: a [`Handler`], or an async function of an input, or of an
/// input and a [`Context`].
///
/// `Kind` tells the three apart; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    label = "neither a `Handler` nor an async function that can be one",
    note = "a struct becomes a handler by implementing `streamer::handler::Handler`",
    note = "an async function is one if it is `async fn(Input) -> Result<Output, HandlerError>` or \
            `async fn(Input, Context) -> Result<Output, HandlerError>`, `Input` is owned and implements \
            `serde::Deserialize`, `Output` implements `serde::Serialize`, and nothing that is not `Send` lives across \
            an await",
    note = "wrap a function of `Input` and `Context` in `streamer::handler::handler_fn(…)`, and the compiler says which of \
            these it lacks"
)]
pub trait IntoHandler<Kind> {
    /// The handler that comes of it.
    type Handler: Handler;

    /// Makes the handler.
    fn into_handler(self) -> Self::Handler;
}

/// The [`IntoHandler`] kind of what is a [`Handler`] already.
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
