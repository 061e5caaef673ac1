//! What is measured, and how a measurement fails.

use std::fmt;
use std::time::Duration;

/// A row of the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Metric {
    /// From the first packet to an open WebSocket.
    Connect,
    /// From a quick request to its response.
    Echo,
    /// From a slow request to its acknowledgment.
    Acknowledgment,
    /// From a slow request's acknowledgment to its first progress; zero if the progress was faster.
    FirstProgress,
    /// From a slow request to its end.
    Complete,
}

impl Metric {
    /// What stands before each name in the report.
    pub(crate) const METHOD: &str = "WS";

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

/// One measurement, and whether what was waited for came as it should.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Measured {
    pub(crate) metric: Metric,
    pub(crate) elapsed: Duration,
    pub(crate) outcome: Result<(), Failure>,
}

/// What went wrong.
///
/// The report counts equal failures in one row: nothing in the text may differ from request to request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    text: String,
    /// The HTTP status, where the upgrade was refused with one.
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
