//! How far a request has come: said by its handler, and taken up at the processor's own pace.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::store::Progress;

/// Where a handler says how far its work has come, and learns that it is to stop.
///
/// Reporting never waits: the latest report wins, and those that come faster than they can be sent
/// are passed over. Only a [checkpoint](Self::checkpoint) is waited for, since what it saves is relied on.
#[derive(Clone, Debug)]
pub struct ProgressReporter {
    latest: Arc<watch::Sender<Progress>>,
    /// `None` where nothing is kept, as of a quick request.
    checkpoints: Option<mpsc::Sender<Checkpoint>>,
    stop: Arc<watch::Sender<Option<StopReason>>>,
    /// Until when the handler may go on, if nothing else happens.
    until: Arc<watch::Sender<Option<Instant>>>,
}

/// Why a handler is to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// Its user or an operator wants the request to end.
    Cancelled,
    /// Another attempt has the request, or may have it: whatever this one does no longer counts.
    LeaseLost,
    /// Its time is up: its own, or its invocation's. Where it has saved a checkpoint since it was started, the request goes
    /// on from the last one in a fresh invocation, unless its own time is up.
    TimeIsUp,
}

/// What a handler wants to have saved, and where it waits to hear of it.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) state: Value,
    pub(crate) saved: oneshot::Sender<Result<(), ProgressError>>,
}

/// The other end of a [`ProgressReporter`]: what an attempt sees of its handler, and tells it.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) checkpoints: mpsc::Receiver<Checkpoint>,
    pub(crate) stop: Arc<watch::Sender<Option<StopReason>>>,
    until: Arc<watch::Sender<Option<Instant>>>,
}

impl Reports {
    /// Sets until when the handler may go on, if nothing else happens.
    pub(crate) fn end_by(&self, until: Instant) {
        self.until.send_replace(Some(until));
    }

    /// Tells the handler to stop. What it was told before stands, unless the lease is lost.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.send_if_modified(|stop| {
            let is_news = stop.is_none() || reason == StopReason::LeaseLost;
            is_news && stop.replace(reason) != Some(reason)
        });
    }

    /// Refuses the checkpoints that the handler waits for, and any more.
    pub(crate) fn refuse_checkpoints(&mut self) {
        self.checkpoints.close();
        while self.checkpoints.try_recv().is_ok() {}
    }
}

impl ProgressReporter {
    /// The longest message, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = 1024;
    /// The most metadata of one request, in bytes of JSON.
    pub const MAX_METADATA_BYTES: usize = 8 * 1024;
    /// The largest checkpoint, in bytes of JSON.
    pub const MAX_CHECKPOINT_BYTES: usize = 256 * 1024;

    /// A reporter that begins with this progress, and where its reports can be seen.
    pub(crate) fn channel(begin: Progress) -> (Self, Reports) {
        let (latest, progress) = watch::channel(begin);
        let (checkpoints, saved) = mpsc::channel(1);
        let (stop, until) = (Arc::new(watch::Sender::new(None)), Arc::new(watch::Sender::new(None)));
        let reports =
            Reports { progress, checkpoints: saved, stop: Arc::clone(&stop), until: Arc::clone(&until) };
        (Self { latest: Arc::new(latest), checkpoints: Some(checkpoints), stop, until }, reports)
    }

    /// A reporter for a request that is answered at once: its reports and checkpoints are checked, and go nowhere.
    #[must_use]
    pub fn disconnected() -> Self {
        Self { checkpoints: None, ..Self::channel(Progress::default()).0 }
    }

    /// Says how far the work has come, from 0 to 100, and what is being done.
    ///
    /// A percentage below the last one is raised to it: within an attempt, progress never goes back.
    ///
    /// # Errors
    /// When the percentage is not a number from 0 to 100, the message is too long, or the handler is to stop.
    pub fn report(&self, percentage: f64, message: impl Into<String>) -> Result<(), ProgressError> {
        self.go_on()?;
        if !(0.0..=100.0).contains(&percentage) {
            return Err(ProgressError::Percentage(percentage));
        }
        let message = message.into();
        if message.len() > Self::MAX_MESSAGE_BYTES {
            return Err(ProgressError::MessageTooLong(message.len()));
        }
        // Two decimals are more than anybody sees, and keep frames and items short. Nobody sees a negative zero at all.
        let percentage = (percentage * 100.0).round() / 100.0 + 0.0;
        self.latest.send_modify(|progress| {
            progress.percentage = progress.percentage.max(percentage);
            progress.message = message;
        });
        Ok(())
    }

    /// Tells something about the work, beside its percentage.
    ///
    /// # Errors
    /// When the value cannot be made JSON, there is too much metadata, or the handler is to stop.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Serialize) -> Result<(), ProgressError> {
        self.go_on()?;
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

    /// Saves what the work can go on from, and waits until that is certain.
    ///
    /// Whatever begins anew goes on from the last state that was saved: the same attempt in a fresh invocation, as well as
    /// an attempt that follows a failure or a crash. It is read by [`Context::checkpoint`](crate::handler::Context::checkpoint).
    /// Saving costs a write each time: do it as often as work that is done twice would cost more.
    ///
    /// # Errors
    /// When the state cannot be made JSON or is too large, when it was not saved, or when the lease is lost. A
    /// handler that is to stop for another reason may still save one, in the moment that it is given.
    pub async fn checkpoint(&self, state: impl Serialize) -> Result<(), ProgressError> {
        let invalid = |problem: String| ProgressError::Checkpoint { problem };
        let state =
            serde_json::to_value(state).map_err(|error| invalid(format!("cannot be made JSON: {error}")))?;
        let bytes = serde_json::to_vec(&state).map_or(usize::MAX, |json| json.len());
        if bytes > Self::MAX_CHECKPOINT_BYTES {
            let max = Self::MAX_CHECKPOINT_BYTES;
            return Err(invalid(format!("may have {max} bytes as JSON, and has {bytes}")));
        }
        if let Some(reason @ StopReason::LeaseLost) = self.stop_reason() {
            return Err(ProgressError::Stopped(reason));
        }
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let (saved, hears) = oneshot::channel();
        let stopped = || ProgressError::Stopped(self.stop_reason().unwrap_or(StopReason::LeaseLost));
        checkpoints.send(Checkpoint { state, saved }).await.map_err(|_| stopped())?;
        hears.await.map_err(|_| stopped())?
    }

    /// How long the handler may go on before it is told to stop, unless something else stops it earlier.
    ///
    /// A handler that works in steps asks before each whether there is time for it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match *self.until.borrow() {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// Why the handler is to stop, if it is. It has a moment to clean up, and is dropped then.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        *self.stop.borrow()
    }

    /// Waits until the handler is to stop, for a `select!` beside its work.
    pub async fn stopped(&self) -> StopReason {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(reason) = *stop.borrow_and_update() {
                return reason;
            }
            // The sender is our own: it is not gone.
            if stop.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Tells the handler to stop, unless it was told before.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.send_if_modified(|stop| stop.is_none() && stop.replace(reason).is_none());
    }

    /// Brings forward the moment at which the handler is told that its time is up.
    pub(crate) fn end_by(&self, until: Instant) {
        self.until.send_if_modified(|set| {
            let is_earlier = set.is_none_or(|set| until < set);
            if is_earlier {
                *set = Some(until);
            }
            is_earlier
        });
    }

    fn go_on(&self) -> Result<(), ProgressError> {
        self.stop_reason().map_or(Ok(()), |reason| Err(ProgressError::Stopped(reason)))
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
    /// The handler is to stop, for this reason.
    Stopped(StopReason),
    /// This is no checkpoint, or it was not saved.
    Checkpoint {
        /// What is wrong.
        problem: String,
    },
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
            Self::Stopped(reason) => f.write_str(match reason {
                StopReason::Cancelled => "the request is cancelled",
                StopReason::LeaseLost => "another attempt has the request",
                StopReason::TimeIsUp => "the handler's time is up",
            }),
            Self::Checkpoint { problem } => write!(f, "a checkpoint {problem}"),
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
    fn what_is_no_progress_is_refused_and_changes_nothing() {
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
        a percentage must be from 0 to 100, and is NaN
        a percentage must be from 0 to 100, and is -0.1
        a percentage must be from 0 to 100, and is 100.1
        a progress message may have 1024 bytes, and has 1025
        progress metadata "big" would make 8202 bytes of metadata; at most 8192 are taken
        progress metadata "map" cannot be made JSON: key must be a string
        "#);
    }

    #[tokio::test]
    async fn who_is_told_to_stop_reports_nothing_more_and_is_told_why_once() {
        let (reporter, reports) = ProgressReporter::channel(Progress::default());
        assert_eq!(reporter.stop_reason(), None);
        let waits = tokio::spawn({
            let reporter = reporter.clone();
            async move { reporter.stopped().await }
        });
        tokio::task::yield_now().await;
        reporter.stop(StopReason::Cancelled);
        reporter.stop(StopReason::TimeIsUp);
        assert_eq!(waits.await.unwrap(), StopReason::Cancelled, "the first reason is the one");
        assert_eq!(reporter.stopped().await, StopReason::Cancelled);
        let stopped = Err(ProgressError::Stopped(StopReason::Cancelled));
        assert_eq!((reporter.report(1.0, "x"), reporter.set_metadata("k", 1)), (stopped.clone(), stopped));
        assert_eq!(*reports.progress.borrow(), Progress::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_the_time_shrinks_and_is_never_put_off() {
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
    async fn a_checkpoint_is_waited_for_until_it_is_saved_and_fails_if_nobody_does() {
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

        let asks = tokio::spawn({
            let reporter = reporter.clone();
            async move { reporter.checkpoint(4).await }
        });
        drop(reports.checkpoints.recv().await.unwrap());
        let lost = Err(ProgressError::Stopped(StopReason::LeaseLost));
        assert_eq!(asks.await.unwrap(), lost, "who does not hear of it does not know that it is saved");
        drop(reports);
        assert_eq!(reporter.checkpoint(5).await, lost);
    }

    #[tokio::test]
    async fn a_checkpoint_that_is_none_is_refused_and_one_for_a_lost_lease_as_well() {
        let (reporter, mut reports) = ProgressReporter::channel(Progress::default());
        let largest = "x".repeat(ProgressReporter::MAX_CHECKPOINT_BYTES - 2);
        let refused = [
            reporter.checkpoint(format!("{largest}x")).await.unwrap_err(),
            reporter.checkpoint(HashMap::from([((1, 2), 3)])).await.unwrap_err(),
        ];
        reporter.stop(StopReason::LeaseLost);
        let lost = reporter.checkpoint(1).await.unwrap_err();
        assert!(reports.checkpoints.try_recv().is_err(), "nothing of it is asked to be saved");
        insta::assert_snapshot!(
            [refused.to_vec(), vec![lost]]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
            @r"
            a checkpoint may have 262144 bytes as JSON, and has 262145
            a checkpoint cannot be made JSON: key must be a string
            another attempt has the request
            "
        );
        assert_eq!(ProgressReporter::disconnected().checkpoint(largest).await, Ok(()));
    }

    #[test]
    fn a_quick_requests_reports_go_nowhere_but_are_checked() {
        let reporter = ProgressReporter::disconnected();
        assert_eq!(reporter.report(1.0, "x"), Ok(()));
        assert!(reporter.report(101.0, "x").is_err());
    }
}
