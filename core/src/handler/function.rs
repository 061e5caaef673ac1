use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Handler, HandlerError};

/// Makes a handler of an async function or closure of an input and a [`Context`].
///
/// [`App::handle`](crate::app::App::handle) takes an async function as it is. This is for closures, whose
/// argument types the compiler then needs not be told twice, and for finding out what is wrong with a function that
/// is not taken: each requirement is checked, and reported, on its own.
///
/// ```
/// use serde_json::Value;
/// use streamer::handler::handler_fn;
///
/// let echo = handler_fn(|message: Value, _| async move { Ok(message) });
/// ```
pub fn handler_fn<F, I, O, Fut>(function: F) -> impl Handler<Input = I, Output = O>
where
    F: Fn(I, Context) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
{
    HandlerFn::<_, fn(I, Context)>::new(function)
}

/// An async function as a [`Handler`]; `Args` are its arguments.
pub struct HandlerFn<F, Args> {
    function: F,
    arguments: PhantomData<Args>,
}

impl<F, Args> HandlerFn<F, Args> {
    const fn new(function: F) -> Self {
        Self { function, arguments: PhantomData }
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
