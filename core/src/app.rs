//! The [`App`]: all handlers of an application, and the middleware around them.
//!
//! Write one function that creates the app, and call it in the `main` of the Lambda functions `router`, `processor`
//! and `worker`, so that all three have the same handlers. Pass the same app to the local stage and to tests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tower::layer::util::Identity as NoLayer;
use tower::{BoxError, Layer, service_fn};

use crate::handler::{Handler as _, IntoHandler, RetryPolicy, endpoint};
use crate::middleware::{Call, CallError, Next, Reply, Step};
use crate::protocol::{ErrorBody, ErrorCode, Message};

/// The handlers of an application, registered by action, and the middleware layers around them.
///
/// Handlers are async functions, or types that implement [`Handler`](crate::handler::Handler):
///
/// ```
/// use streamer::app::App;
/// use streamer::handler::{Context, HandlerError};
///
/// async fn greet(name: String, context: Context) -> Result<String, HandlerError> {
///     Ok(format!("{} greets {name}", context.user))
/// }
///
/// async fn shout(text: String) -> Result<String, HandlerError> {
///     Ok(text.to_uppercase())
/// }
///
/// # fn app() -> Result<App, streamer::app::RegisterError> {
/// let mut app = App::new();
/// app.handle("greet", greet)?.handle("shout", shout)?;
/// # Ok(app)
/// # }
/// # assert_eq!(app().unwrap().actions(), ["greet", "shout"]);
/// ```
#[derive(Default)]
pub struct App {
    routes: Routes,
    retry_policies: HashMap<String, RetryPolicy>,
    fallback_retry_policy: Option<RetryPolicy>,
    layers: Vec<AppLayer>,
    /// The routes wrapped in all layers. Built when the first call arrives, and rebuilt if handlers or layers are
    /// added afterwards.
    stack: OnceLock<Next>,
}

type AppLayer = Box<dyn Fn(Next) -> Next + Send + Sync>;

/// The services that a call reaches after it has passed the app's layers, keyed by action.
#[derive(Clone, Default)]
struct Routes {
    actions: HashMap<String, Next>,
    fallback: Option<Next>,
}

impl Routes {
    /// Returns `true` if an action is built in or has a handler of its own. The fallback handler is not considered.
    fn contains(&self, action: &str) -> bool {
        self.actions.contains_key(action) || App::is_built_in(action)
    }

    /// Sends a call to the layers and the handler of its action.
    async fn dispatch(self: Arc<Self>, call: Call) -> Result<Reply, BoxError> {
        let action = call.context.action.as_str();
        let is_built_in = App::is_built_in(action);
        // The router has already chosen the runtime, by the action in the message: its own runtime for built-in
        // actions, the handlers' runtime otherwise. So a layer must not rename an action from or to a built-in
        // action.
        if is_built_in != call.registered().is_some_and(App::is_built_in) {
            let original = call.registered().unwrap_or("an action without a handler");
            return Err(format!(
                "a layer renamed {original} to {action}; built-in actions cannot be renamed or replaced"
            )
            .into());
        }
        if is_built_in {
            return Ok(Reply::BuiltIn);
        }
        match self.actions.get(action).or(self.fallback.as_ref()) {
            Some(next) => next.clone().run(call).await,
            None => Err(CallError::refused(unknown_action(action)).into()),
        }
    }
}

impl App {
    /// Names of the actions that Streamer itself implements; handlers cannot use these names.
    pub const BUILT_IN_ACTIONS: [&str; 4] = ["ping", "status", "subscribe", "cancel"];

    /// Creates an app that has no handlers and no layers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `handler` for the requests of `action`.
    ///
    /// The handler is a [`Handler`](crate::handler::Handler), an async function of an input, or an async function of
    /// an input and a [`Context`](crate::handler::Context).
    ///
    /// # Errors
    /// [`RegisterError`] if the action's name is empty, has more than [`Message::MAX_ACTION_CHARS`] characters,
    /// contains control characters, or is one of [`Self::BUILT_IN_ACTIONS`]. Also if the action already has a
    /// handler, or if the handler's retry policy is invalid.
    pub fn handle<Kind>(
        &mut self,
        action: impl Into<String>,
        handler: impl IntoHandler<Kind>,
    ) -> Result<&mut Self, RegisterError> {
        self.handle_with(action, handler, NoLayer::new())
    }

    /// Registers `handler` for the requests of `action`, with a layer around this handler only.
    ///
    /// The layer runs inside the app's layers. It runs before the check of the handler's required permission and
    /// before the validation of the input. A tuple of layers can be passed as one layer; its first element is the
    /// outermost.
    ///
    /// # Errors
    /// [`RegisterError`] for the same reasons as [`handle`](Self::handle).
    pub fn handle_with<Kind>(
        &mut self,
        action: impl Into<String>,
        handler: impl IntoHandler<Kind>,
        layer: impl Layer<Next, Service: Step>,
    ) -> Result<&mut Self, RegisterError> {
        let action = valid_action(action.into())?;
        if self.routes.actions.contains_key(&action) {
            return Err(RegisterError::Duplicate(action));
        }
        let handler = handler.into_handler();
        let policy = valid_policy(handler.retry_policy(), Some(&action))?;
        self.retry_policies.insert(action.clone(), policy);
        let route = Next::new(layer.layer(endpoint(handler)));
        self.routes.actions.insert(action, route);
        self.stack.take();
        Ok(self)
    }

    /// Registers `handler` as the fallback, which processes the requests of every action that has no handler. Without
    /// a fallback, the client receives the error `INVALID_ACTION` for these requests.
    ///
    /// # Errors
    /// [`RegisterError`] if the app already has a fallback, or if the handler's retry policy is invalid.
    pub fn fallback<Kind>(&mut self, handler: impl IntoHandler<Kind>) -> Result<&mut Self, RegisterError> {
        if self.routes.fallback.is_some() {
            return Err(RegisterError::DuplicateFallback);
        }
        let handler = handler.into_handler();
        self.fallback_retry_policy = Some(valid_policy(handler.retry_policy(), None)?);
        self.routes.fallback = Some(endpoint(handler));
        self.stack.take();
        Ok(self)
    }

    /// Adds a layer around all actions, including built-in actions and actions that are registered later.
    ///
    /// Each layer wraps all layers that were added before it. So the layer that was added last receives each call
    /// first, and each reply last. All actions share one service of the layer. For example, a concurrency limit of 10
    /// allows 10 concurrent calls of all actions together.
    pub fn layer<L>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Next, Service: Step> + Send + Sync + 'static,
    {
        self.layers.push(Box::new(move |inner| Next::new(layer.layer(inner))));
        self.stack.take();
        self
    }

    /// Returns the names of the actions that have a handler of their own, in alphabetical order.
    #[must_use]
    pub fn actions(&self) -> Vec<&str> {
        let mut actions: Vec<&str> = self.routes.actions.keys().map(String::as_str).collect();
        actions.sort_unstable();
        actions
    }

    /// Returns `true` if Streamer itself implements the action.
    pub(crate) fn is_built_in(action: &str) -> bool {
        Self::BUILT_IN_ACTIONS.contains(&action)
    }

    /// Returns `true` if the action has a handler or is built in, or if the app has a fallback handler.
    pub(crate) fn answers(&self, action: &str) -> bool {
        self.routes.fallback.is_some() || self.routes.contains(action)
    }

    /// Returns the retry policy of the action's handler, or of the fallback handler if the action has no handler.
    pub(crate) fn retry_policy(&self, action: &str) -> RetryPolicy {
        let own = self.retry_policies.get(action);
        own.or(self.fallback_retry_policy.as_ref()).cloned().unwrap_or_default()
    }

    /// Runs a call through all layers and the handler of its action.
    pub(crate) async fn call(&self, mut call: Call) -> Result<Reply, CallError> {
        if !self.routes.contains(&call.context.action) {
            call.registered = None;
        }
        let stack = self.stack.get_or_init(|| {
            let routes = Arc::new(self.routes.clone());
            let dispatch = Next::new(service_fn(move |call| Arc::clone(&routes).dispatch(call)));
            self.layers.iter().fold(dispatch, |inner, layer| layer(inner))
        });
        Ok(stack.clone().run(call).await?)
    }
}

/// Validates the name of an action before its handler is registered.
fn valid_action(action: String) -> Result<String, RegisterError> {
    if action.is_empty() {
        Err(RegisterError::EmptyAction)
    } else if action.chars().count() > Message::MAX_ACTION_CHARS {
        Err(RegisterError::LongAction(action))
    } else if action.chars().any(char::is_control) {
        Err(RegisterError::ControlCharacter(action))
    } else if App::is_built_in(&action) {
        Err(RegisterError::BuiltInAction(action))
    } else {
        Ok(action)
    }
}

/// Validates the retry policy of a handler. `action` is the handler's action; `None` for the fallback handler.
fn valid_policy(policy: RetryPolicy, action: Option<&str>) -> Result<RetryPolicy, RegisterError> {
    match policy.check() {
        Ok(()) => Ok(policy),
        Err(problem) => Err(RegisterError::RetryPolicy { action: action.map(str::to_owned), problem }),
    }
}

/// Creates the `INVALID_ACTION` error for an action that has no handler.
pub(crate) fn unknown_action(action: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidAction, format!("Unknown action: {action}"))
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("actions", &self.actions()).finish()
    }
}

/// The reason why a handler could not be registered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The action's name is empty.
    EmptyAction,
    /// The action's name has more than [`Message::MAX_ACTION_CHARS`] characters. The variant contains the
    /// name.
    LongAction(String),
    /// The action's name contains control characters. The variant contains the name.
    ControlCharacter(String),
    /// The action is one of [`App::BUILT_IN_ACTIONS`]. The variant contains the action's name.
    BuiltInAction(String),
    /// The action already has a handler. The variant contains the action's name.
    Duplicate(String),
    /// The app already has a fallback handler.
    DuplicateFallback,
    /// The handler's [`RetryPolicy`] is invalid.
    RetryPolicy {
        /// Name of the action whose handler has the invalid policy; `None` for the fallback handler.
        action: Option<String>,
        /// Description of the invalid value, such as `allows 0 attempts`, which the error text puts after the
        /// words "the retry policy".
        problem: String,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyAction => f.write_str("the name of an action must not be empty"),
            Self::LongAction(action) => write!(
                f,
                "the action {action:?} has {} characters; at most {} are allowed",
                action.chars().count(),
                Message::MAX_ACTION_CHARS
            ),
            Self::ControlCharacter(action) => {
                write!(f, "the action {action:?} contains a control character, which is not allowed")
            }
            Self::BuiltInAction(action) => {
                write!(f, "the action {action:?} is built in; choose another name")
            }
            Self::Duplicate(action) => write!(f, "the action {action:?} already has a handler"),
            Self::DuplicateFallback => f.write_str("the app already has a fallback"),
            Self::RetryPolicy { action: Some(action), problem } => {
                write!(f, "the retry policy of the action {action:?} {problem}")
            }
            Self::RetryPolicy { action: None, problem } => {
                write!(f, "the fallback's retry policy {problem}")
            }
        }
    }
}

impl std::error::Error for RegisterError {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::handler::{Context, HandlerError, handler_fn};
    use crate::middleware::Phase;

    async fn echo(message: Value) -> Result<Value, HandlerError> {
        Ok(message)
    }

    async fn greet(name: String, context: Context) -> Result<String, HandlerError> {
        Ok(format!("{} greets {name}", context.user))
    }

    async fn call(app: &App, action: &str, payload: Value) -> Result<Reply, CallError> {
        let context = Context::new(action, "r1".into(), "ann".into(), "acme".into(), "c1".into());
        app.call(Call::new(context, payload, Phase::Processing)).await
    }

    #[test]
    fn invalid_or_duplicate_action_name_is_rejected_at_registration() {
        let mut app = App::new();
        app.handle("b", echo).unwrap().handle("a", handler_fn(|_: (), _| async { Ok(()) })).unwrap();
        assert_eq!(app.actions(), ["a", "b"]);
        assert_eq!(format!("{app:?}"), r#"App { actions: ["a", "b"] }"#);

        let longest = "ä".repeat(Message::MAX_ACTION_CHARS);
        app.handle(longest.clone(), echo).unwrap();
        app.fallback(echo).unwrap();
        let mut refused = ["", "ping", "status", "subscribe", "cancel", "a", "a\nb", &format!("{longest}!")]
            .map(|action| app.handle(action, echo).unwrap_err().to_string().replace(&longest, "ä…"))
            .to_vec();
        refused.push(app.fallback(echo).unwrap_err().to_string());
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn handler_with_an_invalid_retry_policy_is_rejected_at_registration() {
        let handler_with_attempts = |attempts| {
            handler_fn(|_: (), _| async { Ok(()) }).retry(RetryPolicy::attempts(attempts).without_panics())
        };
        let mut app = App::new();
        let refused = [
            app.handle("a", handler_with_attempts(0)).unwrap_err().to_string(),
            app.fallback(handler_with_attempts(101)).unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r#"
        the retry policy of the action "a" allows 0 attempts; the number must be from 1 to 100
        the fallback's retry policy allows 101 attempts; the number must be from 1 to 100
        "#);
        assert!(
            app.actions().is_empty() && !app.answers("a"),
            "a handler with an invalid retry policy is not registered"
        );

        app.handle("a", handler_with_attempts(7)).unwrap().handle("b", echo).unwrap();
        assert_eq!(app.retry_policy("a"), RetryPolicy::attempts(7).without_panics());
        assert_eq!(app.retry_policy("b"), RetryPolicy::default());
        assert_eq!(app.retry_policy("c"), RetryPolicy::default());
        app.fallback(handler_with_attempts(9)).unwrap();
        assert_eq!((app.retry_policy("b").max_attempts, app.retry_policy("c").max_attempts), (3, 9));
    }

    #[tokio::test]
    async fn async_function_is_accepted_as_a_handler() {
        let mut app = App::new();
        app.handle("echo", echo).unwrap().handle("greet", greet).unwrap();
        app.handle("add", |numbers: Vec<u32>| async move { Ok(numbers.iter().sum::<u32>()) }).unwrap();
        assert_eq!(call(&app, "echo", json!([1])).await.unwrap(), Reply::Done(json!([1])));
        assert_eq!(call(&app, "greet", json!("bob")).await.unwrap(), Reply::Done(json!("ann greets bob")));
        assert_eq!(call(&app, "add", json!([1, 2])).await.unwrap(), Reply::Done(json!(3)));
    }

    #[tokio::test]
    async fn action_without_handler_is_invalid_unless_the_app_has_a_fallback() {
        let mut app = App::new();
        app.handle("echo", echo).unwrap();
        assert!(app.answers("echo") && !app.answers("fly"));
        let error = call(&app, "fly", Value::Null).await.unwrap_err().into_client_error();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidAction, "Unknown action: fly"));

        let fallback =
            |_: Value, context: Context| async move { Ok(format!("fallback received {}", context.action)) };
        app.fallback(fallback).unwrap();
        assert!(app.answers("fly"));
        assert_eq!(
            call(&app, "fly", Value::Null).await.unwrap(),
            Reply::Done(json!("fallback received fly"))
        );
        assert_eq!(call(&app, "echo", json!(1)).await.unwrap(), Reply::Done(json!(1)));
    }
}
