//! A job: the payload of a request to the simulator's own handlers, which says what its handler does.

use serde::{Deserialize, Serialize};

/// The action of jobs that are tried again whatever happens to them.
pub(super) const WORK: &str = "work";
/// The action of jobs that are tried once.
pub(super) const ONCE: &str = "once";
/// The action of jobs that are tried again when they say so, and neither after a panic nor when their time was up.
pub(super) const BRITTLE: &str = "brittle";
/// The action of jobs that take [`PERMISSION`].
pub(super) const GUARDED: &str = "guarded";
/// All of these.
pub(super) const ACTIONS: [&str; 4] = [WORK, ONCE, BRITTLE, GUARDED];
/// What a token must grant for [`GUARDED`].
pub(super) const PERMISSION: &str = "guards";

/// What a request asks for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Job {
    /// How long it says it will take: what is quick, short or long.
    pub(super) estimate_ms: u64,
    /// How long it may take; 0: as long as its invocation lasts.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) timeout_ms: u64,
    /// What it does before its end.
    pub(super) steps: Vec<JobStep>,
    pub(super) end: JobEnd,
    /// Whether it goes on although it is asked to stop.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) is_deaf: bool,
    /// Means nothing, and makes the payload as large as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ballast: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
const fn is_false(is_so: &bool) -> bool {
    !*is_so
}

/// One thing that a job does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum JobStep {
    /// Takes this many milliseconds.
    Wait(u64),
    /// Reports this percentage.
    Report(f64),
    /// Reports this often in a row.
    Flood(u32),
    /// Tells something beside the percentage.
    Note,
    /// Reports what is no report, and is refused.
    Wild(Wild),
    /// Saves how far it has come.
    Checkpoint,
    /// Saves how far it has come, with this many bytes that mean nothing.
    BigCheckpoint(usize),
}

/// What no report may be.
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

/// How a job ends.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum JobEnd {
    #[default]
    Succeed,
    /// Succeeds with this many bytes in its result that mean nothing.
    SucceedWith(usize),
    /// Fails so that it is worth another attempt, until this attempt, which succeeds.
    FailUntil(u32),
    /// Fails with an error that says nothing of itself, until this attempt, which succeeds.
    BreakUntil(u32),
    /// Fails so that it is worth another attempt after a wait, until this attempt, which succeeds.
    RetryAfter {
        /// This attempt succeeds.
        until: u32,
        /// No attempt is made sooner than this after the last.
        wait_ms: u64,
    },
    /// Fails for good.
    Fail,
    /// Fails for good, with this many bytes to say about it.
    FailWith(usize),
    /// Panics until this attempt, which succeeds.
    PanicUntil(u32),
    /// Goes on in a fresh invocation until it has done so this often, and succeeds.
    GoOnUntil(u32),
}

impl Job {
    /// More make no sense.
    pub(super) const MAX_STEPS: usize = 64;

    /// How long it takes at most, as far as it is for it to say: an hour's wait ends with its time.
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

/// Text of this many bytes that means nothing.
pub(super) fn ballast(bytes: usize) -> String {
    "x".repeat(bytes)
}
