//! Destinations of Lambda: queues and functions that receive records of failed (or successful) invocations.

use std::fmt;

/// Sends a message to the queue or function that an ARN identifies. Lambda sends its records of failed invocations to
/// destinations.
pub trait Destination: fmt::Debug + Send + Sync {
    /// Sends `message` to the queue or function with this ARN.
    ///
    /// # Errors
    /// [`NoDestination`] if the queue or function does not exist, or does not accept the message.
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination>;
}

/// Error of sending a message to a destination. The field contains the destination's ARN.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoDestination(pub String);

impl fmt::Display for NoDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot send to destination {}", self.0)
    }
}

impl std::error::Error for NoDestination {}
