//! Progress reports and checkpoints of a handler, and the signal that asks the handler to stop.
//!
//! A handler gets its [`ProgressReporter`] from [`Context::progress`](crate::handler::Context::progress). The
//! function that runs the handler sends the latest report to clients at intervals, as a `progress` frame.
//!
//! ```
//! use streamer::handler::{Context, HandlerError};
//!
//! async fn resize(images: Vec<String>, context: Context) -> Result<usize, HandlerError> {
//!     for (done, image) in images.iter().enumerate() {
//!         let percentage = 100.0 * done as f64 / images.len() as f64;
//!         context.progress.report(percentage, format!("Resizing {image}"))?;
//!     }
//!     Ok(images.len())
//! }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::store::Progress;

/// Interface through which a handler reports progress, saves checkpoints, and learns that it must stop.
///
/// Reporting never waits. If the handler reports faster than frames can be sent, only the latest report is sent.
/// Saving a [checkpoint](Self::checkpoint) waits until the state is stored, because the request may continue from
/// this state.
#[derive(Clone, Debug)]
pub struct ProgressReporter {
    latest: Arc<watch::Sender<Progress>>,
    /// Channel on which checkpoints are sent to be saved; `None` for a quick request, whose checkpoints are
    /// discarded.
    checkpoints: Option<mpsc::Sender<Checkpoint>>,
    stop: Arc<watch::Sender<Option<StopReason>>>,
    /// Time at which the handler will be asked to stop, unless a cancel or a lost lease stops the handler earlier;
    /// `None` for no limit.
    until: Arc<watch::Sender<Option<Instant>>>,
}

/// The reason why a handler must stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// The user or an operator has cancelled the request.
    Cancelled,
    /// The attempt has lost its lease. Another attempt may already run the request, and the result of this attempt is
    /// ignored.
    LeaseLost,
    /// The handler's [timeout](crate::handler::Handler::timeout) has expired, or its invocation ends soon.
    ///
    /// If the invocation ends and the handler has saved a checkpoint in this invocation, the request continues from
    /// the checkpoint in a new invocation.
    TimeLimitReached,
}

/// A checkpoint to save, and the channel on which the handler waits for the result of the save.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) state: Value,
    pub(crate) saved: oneshot::Sender<Result<(), ProgressError>>,
}

/// The counterpart of a [`ProgressReporter`]. The code that runs the handler uses it to receive reports and
/// checkpoints, and to ask the handler to stop.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) checkpoints: mpsc::Receiver<Checkpoint>,
    pub(crate) stop: Arc<watch::Sender<Option<StopReason>>>,
    until: Arc<watch::Sender<Option<Instant>>>,
}

impl Reports {
    /// Sets the time at which the handler will be asked to stop.
    pub(crate) fn end_by(&self, until: Instant) {
        self.until.send_replace(Some(until));
    }

    /// Asks the handler to stop. If the handler was already asked to stop, only a lost lease replaces the earlier
    /// reason.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.send_if_modified(|stop| {
            let is_new = stop.is_none() || reason == StopReason::LeaseLost;
            is_new && stop.replace(reason) != Some(reason)
        });
    }

    /// Rejects all checkpoints that the handler has sent or will send.
    pub(crate) fn refuse_checkpoints(&mut self) {
        self.checkpoints.close();
        while self.checkpoints.try_recv().is_ok() {}
    }
}

impl ProgressReporter {
    /// Maximum length of a progress message, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = 1024;
    /// Maximum size of the progress metadata of a request, in bytes of JSON.
    pub const MAX_METADATA_BYTES: usize = 8 * 1024;
    /// Maximum size of a checkpoint, in bytes of JSON.
    pub const MAX_CHECKPOINT_BYTES: usize = 256 * 1024;

    /// Creates a reporter whose initial progress is `begin`, and the [`Reports`] that receive its reports.
    pub(crate) fn channel(begin: Progress) -> (Self, Reports) {
        let (latest, progress) = watch::channel(begin);
        let (checkpoints, saved) = mpsc::channel(1);
        let (stop, until) = (Arc::new(watch::Sender::new(None)), Arc::new(watch::Sender::new(None)));
        let reports =
            Reports { progress, checkpoints: saved, stop: Arc::clone(&stop), until: Arc::clone(&until) };
        (Self { latest: Arc::new(latest), checkpoints: Some(checkpoints), stop, until }, reports)
    }

    /// Creates a reporter for a quick request or a test. Reports and checkpoints are validated and then discarded.
    #[must_use]
    pub fn disconnected() -> Self {
        Self { checkpoints: None, ..Self::channel(Progress::default()).0 }
    }

    /// Reports the completed part of the work, as a percentage from 0 to 100, and a description of the current step.
    ///
    /// The percentage never decreases within an attempt. A percentage below the highest reported one is replaced by
    /// the highest.
    ///
    /// # Errors
    /// [`ProgressError`] if the percentage is not a number from 0 to 100, if the message is longer than
    /// [`MAX_MESSAGE_BYTES`](Self::MAX_MESSAGE_BYTES), or if the handler must stop.
    pub fn report(&self, percentage: f64, message: impl Into<String>) -> Result<(), ProgressError> {
        self.check_not_stopped()?;
        if !(0.0..=100.0).contains(&percentage) {
            return Err(ProgressError::Percentage(percentage));
        }
        let message = message.into();
        if message.len() > Self::MAX_MESSAGE_BYTES {
            return Err(ProgressError::MessageTooLong(message.len()));
        }
        // Rounded to two decimals, which keeps frames and items short. Adding 0.0 turns a negative zero into zero.
        let percentage = (percentage * 100.0).round() / 100.0 + 0.0;
        self.latest.send_modify(|progress| {
            progress.percentage = progress.percentage.max(percentage);
            progress.message = message;
        });
        Ok(())
    }

    /// Sets an entry of the progress metadata, which clients receive with the percentage and the message.
    ///
    /// # Errors
    /// [`ProgressError`] if the value cannot be serialized to JSON, if the metadata would be larger than
    /// [`MAX_METADATA_BYTES`](Self::MAX_METADATA_BYTES), or if the handler must stop.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Serialize) -> Result<(), ProgressError> {
        self.check_not_stopped()?;
        let key = key.into();
        let value = serde_json::to_value(value).map_err(|error| ProgressError::Metadata {
            key: key.clone(),
            problem: format!("cannot be serialized to JSON: {error}"),
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
                    "would increase the metadata to {bytes} bytes; at most {} are allowed",
                    Self::MAX_METADATA_BYTES
                );
                refused = Some(ProgressError::Metadata { key, problem });
                return false;
            }
            true
        });
        refused.map_or(Ok(()), Err)
    }

    /// Saves a state from which the request can continue, and waits until the state is stored.
    ///
    /// [`Context::checkpoint`](crate::handler::Context::checkpoint) returns the last saved state when the attempt
    /// continues in a new invocation, and to the next attempt after a failure or a crash. Each call costs one
    /// DynamoDB write. So save a checkpoint only if it would cost more to repeat the work since the last checkpoint.
    ///
    /// # Errors
    /// [`ProgressError`] if the state cannot be serialized to JSON or is larger than
    /// [`MAX_CHECKPOINT_BYTES`](Self::MAX_CHECKPOINT_BYTES), if the state could not be stored, or if the lease is
    /// lost. A handler that must stop because of a cancel or a time limit can still save a checkpoint within its
    /// grace period.
    pub async fn checkpoint(&self, state: impl Serialize) -> Result<(), ProgressError> {
        let invalid = |problem: String| ProgressError::Checkpoint { problem };
        let state = serde_json::to_value(state)
            .map_err(|error| invalid(format!("cannot be serialized to JSON: {error}")))?;
        let bytes = serde_json::to_vec(&state).map_or(usize::MAX, |json| json.len());
        if bytes > Self::MAX_CHECKPOINT_BYTES {
            let max = Self::MAX_CHECKPOINT_BYTES;
            return Err(invalid(format!("has {bytes} bytes as JSON; at most {max} are allowed")));
        }
        if let Some(reason @ StopReason::LeaseLost) = self.stop_reason() {
            return Err(ProgressError::Stopped(reason));
        }
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let (saved, result) = oneshot::channel();
        let stopped = || ProgressError::Stopped(self.stop_reason().unwrap_or(StopReason::LeaseLost));
        checkpoints.send(Checkpoint { state, saved }).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }

    /// Returns the time that the handler has left before its timeout or the end of its invocation; [`Duration::MAX`]
    /// if there is no limit.
    ///
    /// A handler that works in steps should check before each step that enough time remains. A cancel or a lost lease
    /// can stop the handler earlier.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match *self.until.borrow() {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// Returns the reason why the handler must stop; `None` while the handler may continue.
    ///
    /// A handler that must stop has a grace period to clean up. At the end of the grace period, the handler is
    /// dropped.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        *self.stop.borrow()
    }

    /// Waits until the handler must stop, and returns the reason. Use this method as a branch of a `select!` whose
    /// other branch is the handler's work.
    pub async fn stopped(&self) -> StopReason {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(reason) = *stop.borrow_and_update() {
                return reason;
            }
            // `changed` never fails, because `self` owns the sender.
            if stop.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Asks the handler to stop for `reason`, unless the handler was already asked to stop.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.send_if_modified(|stop| stop.is_none() && stop.replace(reason).is_none());
    }

    /// Changes the time at which the handler will be asked to stop to `until`, if `until` is the earlier time.
    pub(crate) fn end_by(&self, until: Instant) {
        self.until.send_if_modified(|set| {
            let is_earlier = set.is_none_or(|set| until < set);
            if is_earlier {
                *set = Some(until);
            }
            is_earlier
        });
    }

    fn check_not_stopped(&self) -> Result<(), ProgressError> {
        self.stop_reason().map_or(Ok(()), |reason| Err(ProgressError::Stopped(reason)))
    }
}

fn json_bytes(metadata: &Map<String, Value>) -> usize {
    serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len())
}

/// The reason why a progress report, metadata or a checkpoint was rejected.
///
/// A handler may ignore the error and continue, or return the error with `?`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProgressError {
    /// The percentage is not a number from 0 to 100. The variant contains the percentage.
    Percentage(f64),
    /// The progress message is too long. The variant contains the message's length in bytes.
    MessageTooLong(usize),
    /// The handler must stop for the contained reason, and its reports are no longer accepted.
    Stopped(StopReason),
    /// The checkpoint is invalid or could not be stored.
    Checkpoint {
        /// Description of the problem, which the error text puts after the words "the checkpoint".
        problem: String,
    },
    /// The progress metadata is too large or cannot be serialized to JSON.
    Metadata {
        /// Key of the rejected metadata entry.
        key: String,
        /// Description of the problem, which the error text puts after the words "progress metadata" and the
        /// key.
        problem: String,
    },
}

impl fmt::Display for ProgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentage(found) => write!(f, "progress percentage must be from 0 to 100, but is {found}"),
            Self::MessageTooLong(bytes) => {
                let max = ProgressReporter::MAX_MESSAGE_BYTES;
                write!(f, "progress message has {bytes} bytes; at most {max} are allowed")
            }
            Self::Stopped(reason) => f.write_str(match reason {
                StopReason::Cancelled => "the request is cancelled",
                StopReason::LeaseLost => "the attempt has lost its lease on the request",
                StopReason::TimeLimitReached => "the time limit of the handler has expired",
            }),
            Self::Checkpoint { problem } => write!(f, "the checkpoint {problem}"),
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
    fn latest_progress_message_is_kept_and_the_percentage_never_decreases() {
        let (reporter, reports) = ProgressReporter::channel(Progress::default());
        let seen = reports.progress;
        reporter.report(10.0, "a").unwrap();
        reporter.report(33.333_333, "b").unwrap();
        reporter.report(20.0, "c").unwrap();
        reporter.set_metadata("rows", 7).unwrap();
        let latest = seen.borrow().clone();
        assert_eq!((latest.percentage, latest.message.as_str()), (33.33, "c"));
        assert_eq!(latest.metadata["rows"], json!(7));
    }

    #[test]
    fn invalid_progress_report_is_rejected_and_changes_nothing() {
        let (reporter, reports) = ProgressReporter::channel(Progress::default());
        let seen = reports.progress;
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
        insta::assert_snapshot!(refused.map(|error| error.to_string()).join("\n"), @r#"
        progress percentage must be from 0 to 100, but is NaN
        progress percentage must be from 0 to 100, but is -0.1
        progress percentage must be from 0 to 100, but is 100.1
        progress message has 1025 bytes; at most 1024 are allowed
        progress metadata "big" would increase the metadata to 8202 bytes; at most 8192 are allowed
        progress metadata "map" cannot be serialized to JSON: key must be a string
        "#);
    }

    #[tokio::test]
    async fn stopped_handler_cannot_report_progress_and_keeps_its_first_stop_reason() {
        let (reporter, reports) = ProgressReporter::channel(Progress::default());
        assert_eq!(reporter.stop_reason(), None);
        let waits = tokio::spawn({
            let reporter = reporter.clone();
            async move { reporter.stopped().await }
        });
        tokio::task::yield_now().await;
        reporter.stop(StopReason::Cancelled);
        reporter.stop(StopReason::TimeLimitReached);
        assert_eq!(waits.await.unwrap(), StopReason::Cancelled, "the first stop reason is kept");
        assert_eq!(reporter.stopped().await, StopReason::Cancelled);
        let stopped = Err(ProgressError::Stopped(StopReason::Cancelled));
        assert_eq!((reporter.report(1.0, "x"), reporter.set_metadata("k", 1)), (stopped.clone(), stopped));
        assert_eq!(*reports.progress.borrow(), Progress::default());
    }

    #[tokio::test(start_paused = true)]
    async fn remaining_time_shrinks_and_is_not_extended_by_a_later_deadline() {
        let reporter = ProgressReporter::disconnected();
        assert_eq!(reporter.remaining(), Duration::MAX);
        let now = Instant::now();
        reporter.end_by(now + Duration::from_secs(10));
        reporter.end_by(now + Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(reporter.remaining(), Duration::from_secs(6));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(reporter.remaining(), Duration::ZERO);
    }

    #[tokio::test]
    async fn checkpoint_call_waits_for_the_save_and_fails_if_the_save_result_is_dropped() {
        let (reporter, mut reports) = ProgressReporter::channel(Progress::default());
        let saves = tokio::spawn({
            let reporter = reporter.clone();
            async move { reporter.checkpoint(json!({"page": 3})).await }
        });
        let Checkpoint { state, saved } = reports.checkpoints.recv().await.unwrap();
        assert_eq!(state, json!({"page": 3}));
        assert!(!saves.is_finished());
        saved.send(Ok(())).unwrap();
        assert_eq!(saves.await.unwrap(), Ok(()));

        let unanswered = tokio::spawn({
            let reporter = reporter.clone();
            async move { reporter.checkpoint(4).await }
        });
        drop(reports.checkpoints.recv().await.unwrap());
        let lost = Err(ProgressError::Stopped(StopReason::LeaseLost));
        assert_eq!(
            unanswered.await.unwrap(),
            lost,
            "a checkpoint counts as not saved if the channel for its result is dropped"
        );
        drop(reports);
        assert_eq!(reporter.checkpoint(5).await, lost);
    }

    #[tokio::test]
    async fn invalid_checkpoint_and_checkpoint_after_a_lost_lease_are_rejected() {
        let (reporter, mut reports) = ProgressReporter::channel(Progress::default());
        let largest = "x".repeat(ProgressReporter::MAX_CHECKPOINT_BYTES - 2);
        let refused = [
            reporter.checkpoint(format!("{largest}x")).await.unwrap_err(),
            reporter.checkpoint(HashMap::from([((1, 2), 3)])).await.unwrap_err(),
        ];
        reporter.stop(StopReason::LeaseLost);
        let lost = reporter.checkpoint(1).await.unwrap_err();
        assert!(reports.checkpoints.try_recv().is_err(), "a rejected checkpoint is not sent to be saved");
        insta::assert_snapshot!(
            [refused.to_vec(), vec![lost]]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
            @r"
            the checkpoint has 262145 bytes as JSON; at most 262144 are allowed
            the checkpoint cannot be serialized to JSON: key must be a string
            the attempt has lost its lease on the request
            "
        );
        assert_eq!(ProgressReporter::disconnected().checkpoint(largest).await, Ok(()));
    }

    #[test]
    fn disconnected_progress_reporter_validates_reports_and_discards_them() {
        let reporter = ProgressReporter::disconnected();
        assert_eq!(reporter.report(1.0, "x"), Ok(()));
        assert!(reporter.report(101.0, "x").is_err());
    }
}
