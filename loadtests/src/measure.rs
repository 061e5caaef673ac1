//! The measured metrics, and the failures of a measurement.

use std::fmt;
use std::time::Duration;

/// A time that each visit measures, shown as one row of the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Metric {
    /// Time from the name lookup to the open WebSocket.
    Connect,
    /// Time from a quick request to its response.
    Echo,
    /// Time from a slow request to its acknowledgment.
    Acknowledgment,
    /// Time from a slow request's acknowledgment to its first progress frame; zero if the progress frame came
    /// first.
    FirstProgress,
    /// Time from a slow request to its complete frame.
    Complete,
}

impl Metric {
    /// Method that the report shows before the name of each metric, in place of an HTTP method.
    pub(crate) const METHOD: &str = "WS";

    /// Name of the metric in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "$connect",
            Self::Echo => "echo",
            Self::Acknowledgment => "acknowledgment",
            Self::FirstProgress => "first progress",
            Self::Complete => "complete",
        }
    }
}

/// One measurement of a metric, and whether the awaited frame or connection was correct.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Measured {
    pub(crate) metric: Metric,
    pub(crate) elapsed: Duration,
    pub(crate) outcome: Result<(), Failure>,
}

/// Reason why a measurement failed.
///
/// The report counts equal texts in one row, so the text must not contain values of a single request, such as
/// its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    text: String,
    /// HTTP status with which the server refused the WebSocket upgrade; `None` for any other failure.
    status: Option<u16>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: None }
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    pub(crate) const fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
