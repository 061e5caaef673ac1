//! Where Lambda sends what a function or a mapping gave up on.

use std::fmt;

/// Takes messages for a queue or a function that an ARN names: an on-failure destination.
pub trait Destination: fmt::Debug + Send + Sync {
    /// Sends `message` to what `arn` names.
    ///
    /// # Errors
    /// When there is no such queue or function.
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination>;
}

/// There is nothing of this ARN to send to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoDestination(pub String);

impl fmt::Display for NoDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no queue or function {}", self.0)
    }
}

impl std::error::Error for NoDestination {}
