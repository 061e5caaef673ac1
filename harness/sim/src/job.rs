//! A job: the payload of a request to the simulator's own handlers, which tells the handler what to do.

use serde::{Deserialize, Serialize};

/// Action of jobs that are retried after every kind of failure that is not final.
pub(super) const WORK: &str = "work";
/// Action of jobs that have a single attempt.
pub(super) const ONCE: &str = "once";
/// Action of jobs that are retried after an error, but not after a panic or a timeout.
pub(super) const BRITTLE: &str = "brittle";
/// Action of jobs that require the permission [`PERMISSION`].
pub(super) const GUARDED: &str = "guarded";
/// All actions of the simulator's own handlers.
pub(super) const ACTIONS: [&str; 4] = [WORK, ONCE, BRITTLE, GUARDED];
/// Permission that a token must grant for [`GUARDED`] jobs.
pub(super) const PERMISSION: &str = "guards";

/// Instructions for the handler of one request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Job {
    /// Estimated duration in milliseconds, which decides whether the request counts as quick, short or long.
    pub(super) estimate_ms: u64,
    /// Time limit of the handler in milliseconds; 0 sets no limit besides the invocation's own.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) timeout_ms: u64,
    /// Steps that the handler does, in order, before it finishes.
    pub(super) steps: Vec<JobStep>,
    /// Result with which the handler finishes.
    pub(super) end: JobEnd,
    /// True if the handler ignores requests to stop and the errors of refused reports.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) is_deaf: bool,
    /// Padding that makes the payload larger.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ballast: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// One step of a job.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum JobStep {
    /// Waits for this many milliseconds.
    Wait(u64),
    /// Reports this progress percentage.
    Report(f64),
    /// Reports progress this many times in a row.
    Flood(u32),
    /// Sets a metadata value for the request's progress frames.
    Note,
    /// Makes an invalid report, which must be refused.
    Wild(Wild),
    /// Saves the number of finished steps as a checkpoint.
    Checkpoint,
    /// Saves the number of finished steps as a checkpoint, with this many bytes of padding.
    BigCheckpoint(usize),
}

/// An invalid progress report or checkpoint.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wild {
    NotANumber,
    Infinite,
    Below,
    Above,
    LongMessage,
    FatMetadata,
    FatCheckpoint,
}

/// Result with which a job finishes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum JobEnd {
    /// Succeeds.
    #[default]
    Succeed,
    /// Succeeds with this many bytes of padding in the result.
    SucceedWith(usize),
    /// Fails with a retryable error until the attempt with this number, which succeeds.
    FailUntil(u32),
    /// Fails with an unclassified error until the attempt with this number, which succeeds.
    BreakUntil(u32),
    /// Fails with a retryable error that asks for a delay, until the attempt with the number `until`, which
    /// succeeds.
    RetryAfter {
        /// Number of the first attempt that succeeds, from 1.
        until: u32,
        /// Shortest delay before the next attempt, in milliseconds.
        wait_ms: u64,
    },
    /// Fails for good, without a retry.
    Fail,
    /// Fails for good, with an error message of this many bytes.
    FailWith(usize),
    /// Panics until the attempt with this number, which succeeds.
    PanicUntil(u32),
    /// Yields to a new invocation this many times, and then succeeds.
    GoOnUntil(u32),
}

impl Job {
    /// Largest number of steps that a job may have.
    pub(super) const MAX_STEPS: usize = 64;

    /// Returns the longest time that the job's own steps take, in milliseconds: the sum of its waits, but at
    /// most its time limit.
    pub(super) fn takes_ms(&self) -> u64 {
        let waits = self.steps.iter().map(|step| match step {
            JobStep::Wait(ms) => *ms,
            JobStep::Report(_)
            | JobStep::Flood(_)
            | JobStep::Note
            | JobStep::Wild(_)
            | JobStep::Checkpoint
            | JobStep::BigCheckpoint(_) => 0,
        });
        let takes: u64 = waits.sum();
        if self.timeout_ms > 0 { takes.min(self.timeout_ms) } else { takes }
    }
}

/// Returns padding of this many bytes.
pub(super) fn ballast(bytes: usize) -> String {
    "x".repeat(bytes)
}
