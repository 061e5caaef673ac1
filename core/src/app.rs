//! One [`App`] holds every handler, and is shared by the router, the processor and the local stage.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tower::layer::util::Identity as NoLayer;
use tower::{BoxError, Layer, service_fn};

use crate::handler::{Handler as _, IntoHandler, RetryPolicy, endpoint};
use crate::middleware::{Call, CallError, Next, Reply, Step};
use crate::protocol::{ErrorBody, ErrorCode, Message};

/// The handlers of an application, by action, and the layers around them.
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
    ways: Ways,
    retry_policies: HashMap<String, RetryPolicy>,
    fallback_retry_policy: Option<RetryPolicy>,
    layers: Vec<AppLayer>,
    /// The layers around the ways, made for the first call.
    stack: OnceLock<Next>,
}

type AppLayer = Box<dyn Fn(Next) -> Next + Send + Sync>;

/// Where each call goes once it has passed the app's layers.
#[derive(Clone, Default)]
struct Ways {
    actions: HashMap<String, Next>,
    fallback: Option<Next>,
}

impl Ways {
    /// Whether an action has a handler of its own, or is built in.
    fn knows(&self, action: &str) -> bool {
        self.actions.contains_key(action) || App::is_built_in(action)
    }

    /// Hands a call to its action's own layers and handler.
    async fn follow(self: Arc<Self>, call: Call) -> Result<Reply, BoxError> {
        let action = call.context.action.as_str();
        let is_built_in = App::is_built_in(action);
        // The router chose by the message whether the call runs where handlers do.
        if is_built_in != call.registered().is_some_and(App::is_built_in) {
            let asked = call.registered().unwrap_or("an action without a handler");
            return Err(
                format!("a layer has renamed {asked} to {action}, and one of them is built in").into()
            );
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
    /// The actions that Streamer itself answers.
    pub const BUILT_IN_ACTIONS: [&str; 4] = ["ping", "status", "subscribe", "cancel"];

    /// An application without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `handler` process the requests of `action`: a [`Handler`](crate::handler::Handler), or an async function of
    /// an input, or of an input and a [`Context`](crate::handler::Context).
    ///
    /// # Errors
    /// When the name is empty, longer than a message's may be, has control characters, is one of
    /// [`Self::BUILT_IN_ACTIONS`], or has a handler already; and when the handler's retry policy makes no sense.
    pub fn handle<Kind>(
        &mut self,
        action: impl Into<String>,
        handler: impl IntoHandler<Kind>,
    ) -> Result<&mut Self, RegisterError> {
        self.handle_with(action, handler, NoLayer::new())
    }

    /// Has `handler` process the requests of `action`, with a layer around it: within the app's own, and around the
    /// handler's permission and validation. A tuple of layers is one; its first is the outermost.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub fn handle_with<Kind>(
        &mut self,
        action: impl Into<String>,
        handler: impl IntoHandler<Kind>,
        layer: impl Layer<Next, Service: Step>,
    ) -> Result<&mut Self, RegisterError> {
        let action = usable(action.into())?;
        if self.ways.actions.contains_key(&action) {
            return Err(RegisterError::Duplicate(action));
        }
        let handler = handler.into_handler();
        let policy = sound(handler.retry_policy(), Some(&action))?;
        self.retry_policies.insert(action.clone(), policy);
        let way = Next::new(layer.layer(endpoint(handler)));
        self.ways.actions.insert(action, way);
        self.stack.take();
        Ok(self)
    }

    /// Has `handler` process the requests of every action without one of its own. Without a fallback they are
    /// answered `INVALID_ACTION`.
    ///
    /// # Errors
    /// When there is a fallback already, or the handler's retry policy makes no sense.
    pub fn fallback<Kind>(&mut self, handler: impl IntoHandler<Kind>) -> Result<&mut Self, RegisterError> {
        if self.ways.fallback.is_some() {
            return Err(RegisterError::DuplicateFallback);
        }
        let handler = handler.into_handler();
        self.fallback_retry_policy = Some(sound(handler.retry_policy(), None)?);
        self.ways.fallback = Some(endpoint(handler));
        self.stack.take();
        Ok(self)
    }

    /// Puts a layer around all actions, also those that are registered later and those that are built in, and around the
    /// layers that were added before: the last one added sees a call first, and its reply last.
    ///
    /// There is one service of the layer for the whole app: a concurrency limit of 10 is 10 for all actions together.
    pub fn layer<L>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Next, Service: Step> + Send + Sync + 'static,
    {
        self.layers.push(Box::new(move |inner| Next::new(layer.layer(inner))));
        self.stack.take();
        self
    }

    /// The actions that have a handler, in alphabetical order.
    #[must_use]
    pub fn actions(&self) -> Vec<&str> {
        let mut actions: Vec<&str> = self.ways.actions.keys().map(String::as_str).collect();
        actions.sort_unstable();
        actions
    }

    /// Whether an action is one of those that Streamer itself answers.
    pub(crate) fn is_built_in(action: &str) -> bool {
        Self::BUILT_IN_ACTIONS.contains(&action)
    }

    /// Whether an action's requests are for anybody to answer.
    pub(crate) fn answers(&self, action: &str) -> bool {
        self.ways.fallback.is_some() || self.ways.knows(action)
    }

    /// When what was queued for an action, and failed, is tried again.
    pub(crate) fn retry_policy(&self, action: &str) -> RetryPolicy {
        let own = self.retry_policies.get(action);
        own.or(self.fallback_retry_policy.as_ref()).cloned().unwrap_or_default()
    }

    /// Sends a call through all layers to its handler.
    pub(crate) async fn call(&self, mut call: Call) -> Result<Reply, CallError> {
        if !self.ways.knows(&call.context.action) {
            call.registered = None;
        }
        let stack = self.stack.get_or_init(|| {
            let ways = Arc::new(self.ways.clone());
            let follow = Next::new(service_fn(move |call| Arc::clone(&ways).follow(call)));
            self.layers.iter().fold(follow, |inner, layer| layer(inner))
        });
        Ok(stack.clone().run(call).await?)
    }
}

/// An action's name, if a message can bear it and Streamer does not answer it itself.
fn usable(action: String) -> Result<String, RegisterError> {
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

/// A policy whose numbers make sense; `None` is the fallback's.
fn sound(policy: RetryPolicy, action: Option<&str>) -> Result<RetryPolicy, RegisterError> {
    match policy.check() {
        Ok(()) => Ok(policy),
        Err(problem) => Err(RegisterError::RetryPolicy { action: action.map(str::to_owned), problem }),
    }
}

/// The answer to an action that nothing answers.
pub(crate) fn unknown_action(action: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidAction, format!("Unknown action: {action}"))
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("actions", &self.actions()).finish()
    }
}

/// Why a handler was not registered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The action's name is empty.
    EmptyAction,
    /// The action's name is longer than a message's may be.
    LongAction(String),
    /// The action's name has control characters.
    ControlCharacter(String),
    /// Streamer itself answers this action.
    BuiltInAction(String),
    /// The action has a handler already.
    Duplicate(String),
    /// The app has a fallback already.
    DuplicateFallback,
    /// The handler's [`RetryPolicy`] makes no sense.
    RetryPolicy {
        /// The handler's action; `None` is the fallback.
        action: Option<String>,
        /// What is wrong with the policy.
        problem: String,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyAction => f.write_str("an action must have a name that is not empty"),
            Self::LongAction(action) => write!(
                f,
                "the action {action:?} has {} characters; a message may name at most {}",
                action.chars().count(),
                Message::MAX_ACTION_CHARS
            ),
            Self::ControlCharacter(action) => {
                write!(f, "the action {action:?} has a control character, which a name must not")
            }
            Self::BuiltInAction(action) => {
                write!(f, "the action {action:?} is built in: give the handler another name")
            }
            Self::Duplicate(action) => write!(f, "the action {action:?} has a handler already"),
            Self::DuplicateFallback => f.write_str("the app has a fallback already"),
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
    fn each_action_takes_one_handler_under_a_name_that_a_message_can_bear() {
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
    fn a_retry_policy_without_sense_is_refused_when_its_handler_is_registered() {
        let retried = |attempts| {
            handler_fn(|_: (), _| async { Ok(()) }).retry(RetryPolicy::attempts(attempts).without_panics())
        };
        let mut app = App::new();
        let refused = [
            app.handle("a", retried(0)).unwrap_err().to_string(),
            app.fallback(retried(101)).unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r#"
        the retry policy of the action "a" allows 0 attempts, and must allow from 1 to 100
        the fallback's retry policy allows 101 attempts, and must allow from 1 to 100
        "#);
        assert!(app.actions().is_empty() && !app.answers("a"), "what is refused is not registered");

        app.handle("a", retried(7)).unwrap().handle("b", echo).unwrap();
        assert_eq!(app.retry_policy("a"), RetryPolicy::attempts(7).without_panics());
        assert_eq!(app.retry_policy("b"), RetryPolicy::default());
        assert_eq!(app.retry_policy("c"), RetryPolicy::default());
        app.fallback(retried(9)).unwrap();
        assert_eq!((app.retry_policy("b").max_attempts, app.retry_policy("c").max_attempts), (3, 9));
    }

    #[tokio::test]
    async fn a_plain_async_function_is_enough() {
        let mut app = App::new();
        app.handle("echo", echo).unwrap().handle("greet", greet).unwrap();
        app.handle("add", |numbers: Vec<u32>| async move { Ok(numbers.iter().sum::<u32>()) }).unwrap();
        assert_eq!(call(&app, "echo", json!([1])).await.unwrap(), Reply::Done(json!([1])));
        assert_eq!(call(&app, "greet", json!("bob")).await.unwrap(), Reply::Done(json!("ann greets bob")));
        assert_eq!(call(&app, "add", json!([1, 2])).await.unwrap(), Reply::Done(json!(3)));
    }

    #[tokio::test]
    async fn an_action_without_a_handler_is_invalid_unless_there_is_a_fallback() {
        let mut app = App::new();
        app.handle("echo", echo).unwrap();
        assert!(app.answers("echo") && !app.answers("fly"));
        let error = call(&app, "fly", Value::Null).await.unwrap_err().into_told();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidAction, "Unknown action: fly"));

        let asked = |_: Value, context: Context| async move { Ok(format!("no {} yet", context.action)) };
        app.fallback(asked).unwrap();
        assert!(app.answers("fly"));
        assert_eq!(call(&app, "fly", Value::Null).await.unwrap(), Reply::Done(json!("no fly yet")));
        assert_eq!(call(&app, "echo", json!(1)).await.unwrap(), Reply::Done(json!(1)));
    }
}
