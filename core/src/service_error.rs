use std::error::Error;
use std::fmt;

/// An AWS service that did not do what it was asked to.
#[derive(Debug)]
pub struct ServiceError {
    context: String,
    is_transient: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl ServiceError {
    /// A call that may succeed later; `context` says what was being done.
    #[must_use]
    pub fn transient(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { context: context.into(), is_transient: true, source: source.into() }
    }

    /// A call that was refused for good: its configuration or its policy is to be mended.
    #[must_use]
    pub fn refused(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { context: context.into(), is_transient: false, source: source.into() }
    }

    /// Whether the same call may succeed later.
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
