//! What the simulated stage runs: an app whose handlers do what the payload says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::progress::{ProgressError, ProgressReporter};
use streamer::protocol::FieldError;

use super::record::{Did, HandlerEvent, Recorder, What};

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

/// Which handler: they differ in what they are tried again for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Work,
    Once,
    Brittle,
    Guarded,
}

/// Does what a job says, and tells the recorder.
#[derive(Clone, Debug)]
pub(super) struct Work {
    recorder: Recorder,
    kind: Kind,
}

/// What a job goes on from.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Saved {
    /// This many steps are done.
    done: usize,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ballast: String,
}

/// The app of the simulated stage.
pub(super) fn app(recorder: &Recorder) -> App {
    let mut app = App::new();
    let kinds = [(WORK, Kind::Work), (ONCE, Kind::Once), (BRITTLE, Kind::Brittle), (GUARDED, Kind::Guarded)];
    for (action, kind) in kinds {
        let work = Work { recorder: recorder.clone(), kind };
        app.handle(action, work).expect("each action is registered once, with a policy that makes sense");
    }
    app
}

impl Handler for Work {
    type Input = Job;
    type Output = Value;

    fn required_permission(&self) -> Option<&str> {
        (self.kind == Kind::Guarded).then_some(PERMISSION)
    }

    fn validate(&self, job: &Job) -> Result<(), Vec<FieldError>> {
        if job.steps.len() > Job::MAX_STEPS {
            let problem = format!("are {}; at most {} are taken", job.steps.len(), Job::MAX_STEPS);
            return Err(vec![FieldError::new("steps", problem)]);
        }
        Ok(())
    }

    fn estimated_duration(&self, job: &Job) -> Duration {
        Duration::from_millis(job.estimate_ms)
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        (job.timeout_ms > 0).then(|| Duration::from_millis(job.timeout_ms))
    }

    fn retry_policy(&self) -> RetryPolicy {
        let policy = RetryPolicy::attempts(4).base(Duration::from_secs(2)).cap(Duration::from_secs(30));
        match self.kind {
            Kind::Work | Kind::Guarded => policy,
            Kind::Once => RetryPolicy::never(),
            Kind::Brittle => policy.without_timeouts().without_panics(),
        }
    }

    async fn process(&self, job: Job, context: Context) -> Result<Value, HandlerError> {
        let mut run = Run::begin(&self.recorder, &context);
        let done = job.do_steps(&context).await;
        let ended = match done {
            Ok(()) => job.come_to_its_end(&context, &mut run).await,
            Err(error) => Err(error),
        };
        run.ended();
        ended
    }
}

impl Job {
    /// More make no sense.
    pub(super) const MAX_STEPS: usize = 64;
    /// How much of an invocation it leaves unused when it goes on in another.
    const MARGIN: Duration = Duration::from_secs(5);

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

    async fn do_steps(&self, context: &Context) -> Result<(), HandlerError> {
        let progress = &context.progress;
        let saved: Option<Saved> = context.checkpoint()?;
        let mut has_saved = saved.is_some();
        let done = saved.unwrap_or_default().done;
        for (at, step) in self.steps.iter().enumerate().skip(done) {
            if !self.is_deaf && progress.stop_reason().is_some() {
                return Err(HandlerError::go_on_later());
            }
            match step {
                JobStep::Wait(ms) => {
                    let time = Duration::from_millis(*ms);
                    if !self.is_deaf && has_saved && progress.remaining() < time + Self::MARGIN {
                        return Err(HandlerError::go_on_later());
                    }
                    self.wait(time, progress).await?;
                }
                JobStep::Report(percentage) => {
                    self.said(progress.report(*percentage, format!("step {at}")))?
                }
                JobStep::Flood(reports) => {
                    for report in 0..*reports {
                        let percentage = f64::from(report) / f64::from(*reports) * 100.0;
                        self.said(progress.report(percentage, "flood"))?;
                        tokio::task::yield_now().await;
                    }
                }
                JobStep::Note => self.said(progress.set_metadata("step", at))?,
                JobStep::Wild(wild) => wild.tried(progress).await?,
                JobStep::Checkpoint => {
                    self.said(progress.checkpoint(Saved { done: at + 1, ballast: String::new() }).await)?;
                    has_saved = true;
                }
                JobStep::BigCheckpoint(bytes) => {
                    self.said(progress.checkpoint(Saved { done: at + 1, ballast: ballast(*bytes) }).await)?;
                    has_saved = true;
                }
            }
        }
        Ok(())
    }

    /// Takes its time. Who listens stops when it is told to: it goes on later if it can, else that is for its attempt to say.
    async fn wait(&self, time: Duration, progress: &ProgressReporter) -> Result<(), HandlerError> {
        if self.is_deaf {
            tokio::time::sleep(time).await;
            return Ok(());
        }
        tokio::select! {
            biased;
            _ = progress.stopped() => Err(HandlerError::go_on_later()),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Who is deaf does not mind what is not taken.
    fn said(&self, said: Result<(), ProgressError>) -> Result<(), ProgressError> {
        if self.is_deaf { Ok(()) } else { said }
    }

    async fn come_to_its_end(&self, context: &Context, run: &mut Run) -> Result<Value, HandlerError> {
        let mut bytes = 0;
        match self.end {
            JobEnd::FailUntil(attempt) if context.attempt < attempt => {
                return Err(HandlerError::retryable("BUSY", "not yet"));
            }
            JobEnd::BreakUntil(attempt) if context.attempt < attempt => {
                return Err(std::io::Error::other("it broke, as its job says").into());
            }
            JobEnd::RetryAfter { until, wait_ms } if context.attempt < until => {
                let wait = Duration::from_millis(wait_ms);
                return Err(HandlerError::retryable("BUSY", "not for a while").retry_after(wait));
            }
            JobEnd::PanicUntil(attempt) if context.attempt < attempt => {
                run.ended();
                panic!("a handler panics on purpose, as its job says");
            }
            JobEnd::GoOnUntil(continuations) if context.continuations < continuations => {
                context.progress.checkpoint(Saved { done: self.steps.len(), ballast: String::new() }).await?;
                return Err(HandlerError::go_on_later());
            }
            JobEnd::Fail => return Err(HandlerError::failure("NO_GOOD", "it never will")),
            JobEnd::FailWith(bytes) => return Err(HandlerError::failure("NO_GOOD", ballast(bytes))),
            JobEnd::SucceedWith(ballast) => bytes = ballast,
            JobEnd::Succeed
            | JobEnd::FailUntil(_)
            | JobEnd::BreakUntil(_)
            | JobEnd::RetryAfter { .. }
            | JobEnd::PanicUntil(_)
            | JobEnd::GoOnUntil(_) => {}
        }
        let mut result = json!({
            "user": context.user.as_str(), "tenant": context.tenant.as_str(), "id": context.request_id.as_str(),
        });
        if bytes > 0 {
            result["ballast"] = ballast(bytes).into();
        }
        Ok(result)
    }
}

impl Wild {
    /// Tries it. It is refused, and whoever takes it has its job fail with what no job says.
    async fn tried(self, progress: &ProgressReporter) -> Result<(), HandlerError> {
        let said = match self {
            Self::NotANumber => progress.report(f64::NAN, "wild"),
            Self::Infinite => progress.report(f64::INFINITY, "wild"),
            Self::Below => progress.report(-5.0, "wild"),
            Self::Above => progress.report(1e9, "wild"),
            Self::LongMessage => progress.report(1.0, ballast(ProgressReporter::MAX_MESSAGE_BYTES + 1)),
            Self::FatMetadata => progress.set_metadata("fat", ballast(ProgressReporter::MAX_METADATA_BYTES)),
            Self::FatCheckpoint => progress.checkpoint(ballast(ProgressReporter::MAX_CHECKPOINT_BYTES)).await,
        };
        match said {
            Ok(()) => Err(HandlerError::failure("TAKEN", format!("{self:?} was taken"))),
            Err(_) => Ok(()),
        }
    }
}

/// Text of this many bytes that means nothing.
pub(super) fn ballast(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// One run of a handler, which says so when it is dropped.
struct Run {
    recorder: Recorder,
    event: HandlerEvent,
}

impl Run {
    fn begin(recorder: &Recorder, context: &Context) -> Self {
        let event = HandlerEvent {
            user: context.user.as_str().to_owned(),
            tenant: context.tenant.as_str().to_owned(),
            id: context.request_id.as_str().to_owned(),
            attempt: context.attempt,
            continuations: context.continuations,
            did: Did::Begin,
        };
        recorder.record(What::Handler(event.clone()));
        Self { recorder: recorder.clone(), event: HandlerEvent { did: Did::Dropped, ..event } }
    }

    fn ended(&mut self) {
        self.event.did = Did::End;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.recorder.record(What::Handler(self.event.clone()));
    }
}
