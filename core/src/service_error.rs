use std::error::Error;
use std::fmt;

/// The failure of a call to an AWS service.
#[derive(Debug)]
pub struct ServiceError {
    context: String,
    is_transient: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl ServiceError {
    /// Creates an error for a call that may succeed when it is repeated later. `context` is the text of the error,
    /// such as `dead letter d1 was not sent`.
    #[must_use]
    pub fn transient(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { context: context.into(), is_transient: true, source: source.into() }
    }

    /// Creates an error for a call that the service refused. The call keeps failing until someone fixes the
    /// configuration or an IAM policy. `context` is the text of the error.
    #[must_use]
    pub fn refused(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { context: context.into(), is_transient: false, source: source.into() }
    }

    /// Returns `true` if the call may succeed when it is repeated later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.is_transient
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
