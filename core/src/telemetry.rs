//! Logs and metrics of the Lambda functions, as JSON lines on standard output.
//!
//! Log events are written with `tracing`, one JSON object per line, for queries with CloudWatch Logs Insights.
//! Metrics are written as [`MetricLine`]s, from which CloudWatch extracts metrics without an API call.

mod emf;
pub(crate) mod record;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use tracing::Dispatch;
use tracing::dispatcher;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Environment;

pub use emf::{MetricLine, MetricSink, StandardOutput};

/// Reads the environment variable `LOG_LEVEL`, the minimum level of the events that are logged; default `info`.
#[doc(hidden)]
pub fn log_level(environment: &mut Environment<'_>) -> LevelFilter {
    environment.or_default("LOG_LEVEL", LevelFilter::INFO, "off, error, warn, info, debug or trace")
}

/// Sets up logging. Events of at least `level` are written to standard output as JSON lines.
///
/// Only the first call in a process has an effect.
pub(crate) fn init(level: LevelFilter) {
    // An error means that logging is already set up.
    let _ = dispatcher::set_global_default(writing(level, io::stdout));
}

/// Creates a `tracing` dispatcher that calls `line` with each event of at least `level`, formatted like the log lines
/// of a function on Lambda.
///
/// Use it in a process that runs several functions, such as the local stage. Run each function's future with its own
/// dispatcher, which `tracing::instrument::WithSubscriber` sets.
#[doc(hidden)]
pub fn lines_to(level: LevelFilter, line: impl Fn(&str) + Send + Sync + 'static) -> Dispatch {
    let line = Arc::new(line);
    writing(level, move || Lines(Arc::clone(&line)))
}

fn writing<W>(level: LevelFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(level)
        .with_writer(writer)
        .finish();
    Dispatch::new(subscriber)
}

/// A writer that calls a function with each log line. This works because the JSON formatter writes each event in a
/// single `write` call.
struct Lines<F>(Arc<F>);

impl<F: Fn(&str)> io::Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats an error and all its sources (causes) on one line, separated by colons, the error itself first.
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
    fn error_is_formatted_with_all_its_causes_outermost_first() {
        let refused = Layer("connection refused", None);
        assert_eq!(Causes(&refused).to_string(), "connection refused");
        let dispatch = Layer("dispatch failure", Some(Box::new(refused)));
        let store = Layer("store unavailable", Some(Box::new(dispatch)));
        assert_eq!(Causes(&store).to_string(), "store unavailable: dispatch failure: connection refused");
    }
}
