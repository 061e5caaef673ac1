//! What the functions tell their operators: one JSON object a line, as CloudWatch Logs Insights reads them.
//!
//! Log lines go through `tracing`; metrics are a [`MetricLine`] each, which CloudWatch makes metrics of without a call.

mod emf;
pub(crate) mod record;

use std::error::Error;
use std::fmt;

use tracing::level_filters::LevelFilter;

pub use emf::{MetricLine, MetricSink, StandardOutput};

/// Writes every event of `level` and above to standard output, as JSON.
///
/// Call it once, before anything else: a second call changes nothing.
pub fn init(level: LevelFilter) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(level)
        .finish();
    // Only a second call can fail, and then logging stands already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// An error with all that caused it, in one line.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn an_error_is_told_with_all_that_caused_it_outermost_first() {
        let refused = Layer("connection refused", None);
        assert_eq!(Causes(&refused).to_string(), "connection refused");
        let dispatch = Layer("dispatch failure", Some(Box::new(refused)));
        let store = Layer("store unavailable", Some(Box::new(dispatch)));
        assert_eq!(Causes(&store).to_string(), "store unavailable: dispatch failure: connection refused");
    }
}
