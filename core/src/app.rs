//! One [`App`] holds every handler, and is shared by the router, the processor and the local stage.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::handler::{Accepted, DynHandler, Handler};
use crate::protocol::{ErrorBody, ErrorCode};

/// The handlers of an application, by action.
#[derive(Default)]
pub struct App {
    handlers: HashMap<String, Arc<dyn DynHandler>>,
}

impl App {
    /// The actions that Streamer itself answers.
    pub const BUILT_IN_ACTIONS: [&str; 4] = ["ping", "status", "subscribe", "cancel"];

    /// An application without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `handler` process the requests of `action`.
    ///
    /// # Errors
    /// When the name is empty, is one of [`Self::BUILT_IN_ACTIONS`], or has a handler already.
    pub fn handle(
        &mut self,
        action: impl Into<String>,
        handler: impl Handler,
    ) -> Result<&mut Self, RegisterError> {
        let action = action.into();
        if action.is_empty() {
            return Err(RegisterError::EmptyAction);
        }
        if Self::BUILT_IN_ACTIONS.contains(&action.as_str()) {
            return Err(RegisterError::BuiltInAction(action));
        }
        if self.handlers.contains_key(&action) {
            return Err(RegisterError::Duplicate(action));
        }
        self.handlers.insert(action, Arc::new(handler));
        Ok(self)
    }

    /// The actions that have a handler, in alphabetical order.
    #[must_use]
    pub fn actions(&self) -> Vec<&str> {
        let mut actions: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
        actions.sort_unstable();
        actions
    }

    /// Hands a payload to the handler of `action`, which says whether it takes it.
    pub(crate) fn accept(&self, action: &str, payload: &serde_json::Value) -> Result<Accepted, ErrorBody> {
        let Some(handler) = self.handlers.get(action) else {
            return Err(ErrorBody::new(ErrorCode::InvalidAction, format!("Unknown action: {action}")));
        };
        Arc::clone(handler).accept(payload)
    }
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
    /// Streamer itself answers this action.
    BuiltInAction(String),
    /// The action has a handler already.
    Duplicate(String),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyAction => f.write_str("an action must have a name that is not empty"),
            Self::BuiltInAction(action) => {
                write!(f, "the action {action:?} is built in: give the handler another name")
            }
            Self::Duplicate(action) => write!(f, "the action {action:?} has a handler already"),
        }
    }
}

impl std::error::Error for RegisterError {}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::handler::{Context, handler_fn};

    fn echo() -> impl Handler {
        handler_fn(|message: Value, _: Context| async move { Ok(message) })
    }

    #[test]
    fn each_action_takes_one_handler() {
        let mut app = App::new();
        app.handle("b", echo()).unwrap().handle("a", echo()).unwrap();
        assert_eq!(app.actions(), ["a", "b"]);
        assert_eq!(format!("{app:?}"), r#"App { actions: ["a", "b"] }"#);

        let mut refused = |action: &str| app.handle(action, echo()).unwrap_err().to_string();
        assert_eq!(refused(""), "an action must have a name that is not empty");
        assert_eq!(refused("ping"), "the action \"ping\" is built in: give the handler another name");
        assert_eq!(refused("a"), "the action \"a\" has a handler already");
    }

    #[test]
    fn an_action_without_a_handler_is_invalid() {
        let error = App::new().accept("fly", &Value::Null).err().unwrap();
        assert_eq!(error.code, ErrorCode::InvalidAction);
        assert_eq!(error.message, "Unknown action: fly");
    }
}
