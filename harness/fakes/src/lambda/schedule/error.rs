//! Error for a schedule expression that cannot be parsed.

use std::fmt;

/// Error for a schedule expression that cannot be parsed. The message names the problem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpressionError(String);

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpressionError {}

pub(super) fn wrong(message: impl Into<String>) -> ExpressionError {
    ExpressionError(message.into())
}
