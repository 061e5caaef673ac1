//! How far a request has come: said by its handler, and taken up at the processor's own pace.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::store::Progress;

/// Where a handler says how far its work has come.
///
/// Reporting never waits: the latest report wins, and those that come faster than they can be sent
/// are passed over.
#[derive(Clone, Debug)]
pub struct ProgressReporter {
    latest: watch::Sender<Progress>,
}

impl ProgressReporter {
    /// The longest message, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = 1024;
    /// The most metadata of one request, in bytes of JSON.
    pub const MAX_METADATA_BYTES: usize = 8 * 1024;

    /// A reporter, and where its reports can be seen.
    pub(crate) fn channel() -> (Self, watch::Receiver<Progress>) {
        let (latest, seen) = watch::channel(Progress::default());
        (Self { latest }, seen)
    }

    /// A reporter for a request that is answered at once: its reports are checked, and go nowhere.
    #[must_use]
    pub fn disconnected() -> Self {
        Self::channel().0
    }

    /// Says how far the work has come, from 0 to 100, and what is being done.
    ///
    /// A percentage below the last one is raised to it: within an attempt, progress never goes back.
    ///
    /// # Errors
    /// When the percentage is not a number from 0 to 100, or the message is too long.
    pub fn report(&self, percentage: f64, message: impl Into<String>) -> Result<(), ProgressError> {
        if !(0.0..=100.0).contains(&percentage) {
            return Err(ProgressError::Percentage(percentage));
        }
        let message = message.into();
        if message.len() > Self::MAX_MESSAGE_BYTES {
            return Err(ProgressError::MessageTooLong(message.len()));
        }
        // Two decimals are more than anybody sees, and keep frames and items short.
        let percentage = (percentage * 100.0).round() / 100.0;
        self.latest.send_modify(|progress| {
            progress.percentage = progress.percentage.max(percentage);
            progress.message = message;
        });
        Ok(())
    }

    /// Tells something about the work, beside its percentage.
    ///
    /// # Errors
    /// When the value cannot be made JSON, or there is too much metadata.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Serialize) -> Result<(), ProgressError> {
        let key = key.into();
        let value = serde_json::to_value(value).map_err(|error| ProgressError::Metadata {
            key: key.clone(),
            problem: format!("cannot be made JSON: {error}"),
        })?;
        let mut refused = None;
        self.latest.send_if_modified(|progress| {
            let before = progress.metadata.insert(key.clone(), value);
            let bytes = json_bytes(&progress.metadata);
            if bytes > Self::MAX_METADATA_BYTES {
                match before {
                    Some(before) => progress.metadata.insert(key.clone(), before),
                    None => progress.metadata.remove(&key),
                };
                let problem = format!(
                    "would make {bytes} bytes of metadata; at most {} are taken",
                    Self::MAX_METADATA_BYTES
                );
                refused = Some(ProgressError::Metadata { key, problem });
                return false;
            }
            true
        });
        refused.map_or(Ok(()), Err)
    }
}

fn json_bytes(metadata: &Map<String, Value>) -> usize {
    serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len())
}

/// A report that was refused. The work itself goes on, unless its handler passes the error on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProgressError {
    /// The percentage is not a number from 0 to 100.
    Percentage(f64),
    /// The message has this many bytes.
    MessageTooLong(usize),
    /// This metadata is too much, or no JSON.
    Metadata {
        /// Its key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for ProgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentage(found) => write!(f, "a percentage must be from 0 to 100, and is {found}"),
            Self::MessageTooLong(bytes) => {
                let max = ProgressReporter::MAX_MESSAGE_BYTES;
                write!(f, "a progress message may have {max} bytes, and has {bytes}")
            }
            Self::Metadata { key, problem } => write!(f, "progress metadata {key:?} {problem}"),
        }
    }
}

impl std::error::Error for ProgressError {}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_latest_report_wins_and_never_goes_back() {
        let (reporter, seen) = ProgressReporter::channel();
        reporter.report(10.0, "a").unwrap();
        reporter.report(33.333_333, "b").unwrap();
        reporter.report(20.0, "c").unwrap();
        reporter.set_metadata("rows", 7).unwrap();
        let latest = seen.borrow().clone();
        assert_eq!((latest.percentage, latest.message.as_str()), (33.33, "c"));
        assert_eq!(latest.metadata["rows"], json!(7));
    }

    #[test]
    fn what_is_no_progress_is_refused_and_changes_nothing() {
        let (reporter, seen) = ProgressReporter::channel();
        let refused = [
            reporter.report(f64::NAN, "x").unwrap_err(),
            reporter.report(-0.1, "x").unwrap_err(),
            reporter.report(100.1, "x").unwrap_err(),
            reporter.report(1.0, "x".repeat(1025)).unwrap_err(),
            reporter.set_metadata("big", "x".repeat(8 * 1024)).unwrap_err(),
            reporter.set_metadata("map", HashMap::from([((1, 2), 3)])).unwrap_err(),
        ];
        assert_eq!(*seen.borrow(), Progress::default());
        assert!(!seen.has_changed().unwrap());
        insta::assert_snapshot!(refused.map(|error| error.to_string()).join("\n"));
    }

    #[test]
    fn a_quick_requests_reports_go_nowhere_but_are_checked() {
        let reporter = ProgressReporter::disconnected();
        assert_eq!(reporter.report(1.0, "x"), Ok(()));
        assert!(reporter.report(101.0, "x").is_err());
    }
}
