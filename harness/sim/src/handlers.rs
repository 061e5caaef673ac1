//! The app of the simulated stage: handlers that execute their payload, which is a job (a list of
//! instructions).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::progress::{ProgressError, ProgressReporter};
use streamer::protocol::FieldError;

use super::event::{EventKind, HandlerEvent, HandlerPhase};
use super::job::{BRITTLE, GUARDED, Job, JobEnd, JobStep, ONCE, PERMISSION, WORK, Wild, ballast};
use super::recorder::Recorder;

/// Path of this source file, by which the simulator recognizes the deliberate panics of
/// [`JobEnd::PanicUntil`].
pub(super) const FILE: &str = file!();

/// Kind of a handler. The kinds differ in retry policy and required permission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Work,
    Once,
    Brittle,
    Guarded,
}

/// Handler that executes the job in its payload, and records the start and the end of each run.
#[derive(Clone, Debug)]
struct JobHandler {
    recorder: Recorder,
    kind: Kind,
}

/// Checkpoint of a job, from which the next attempt continues.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Saved {
    /// Number of the job's steps that are done.
    done: usize,
    /// Padding that makes the checkpoint larger.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ballast: String,
}

/// Builds the app of the simulated stage.
pub(super) fn app(recorder: &Recorder) -> App {
    let mut app = App::new();
    let kinds = [(WORK, Kind::Work), (ONCE, Kind::Once), (BRITTLE, Kind::Brittle), (GUARDED, Kind::Guarded)];
    for (action, kind) in kinds {
        let handler = JobHandler { recorder: recorder.clone(), kind };
        app.handle(action, handler).expect("each action is registered once, with a valid retry policy");
    }
    app
}

impl Handler for JobHandler {
    type Input = Job;
    type Output = Value;

    fn required_permission(&self) -> Option<&str> {
        (self.kind == Kind::Guarded).then_some(PERMISSION)
    }

    fn validate(&self, job: &Job) -> Result<(), Vec<FieldError>> {
        if job.steps.len() > Job::MAX_STEPS {
            let problem = format!("expected at most {} steps, found {}", Job::MAX_STEPS, job.steps.len());
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
        let mut run = HandlerRun::begin(&self.recorder, &context);
        let outcome = match job.do_steps(&context).await {
            Ok(()) => job.finish(&context, &mut run).await,
            Err(error) => Err(error),
        };
        run.ended();
        outcome
    }
}

impl Job {
    /// Part of an invocation's time that a job leaves unused when it yields to a new invocation.
    const MARGIN: Duration = Duration::from_secs(5);

    async fn do_steps(&self, context: &Context) -> Result<(), HandlerError> {
        let progress = &context.progress;
        let saved: Option<Saved> = context.checkpoint()?;
        let mut has_saved = saved.is_some();
        let done = saved.unwrap_or_default().done;
        for (at, step) in self.steps.iter().enumerate().skip(done) {
            if !self.is_deaf && progress.stop_reason().is_some() {
                return Err(HandlerError::continue_later());
            }
            match step {
                JobStep::Wait(ms) => {
                    let time = Duration::from_millis(*ms);
                    if !self.is_deaf && has_saved && progress.remaining() < time + Self::MARGIN {
                        return Err(HandlerError::continue_later());
                    }
                    self.wait(time, progress).await?;
                }
                JobStep::Report(percentage) => {
                    self.unless_deaf(progress.report(*percentage, format!("step {at}")))?
                }
                JobStep::Flood(reports) => {
                    for report in 0..*reports {
                        let percentage = f64::from(report) / f64::from(*reports) * 100.0;
                        self.unless_deaf(progress.report(percentage, "flood"))?;
                        tokio::task::yield_now().await;
                    }
                }
                JobStep::Note => self.unless_deaf(progress.set_metadata("step", at))?,
                JobStep::Wild(wild) => wild.attempt(progress).await?,
                JobStep::Checkpoint => {
                    self.unless_deaf(
                        progress.checkpoint(Saved { done: at + 1, ballast: String::new() }).await,
                    )?;
                    has_saved = true;
                }
                JobStep::BigCheckpoint(bytes) => {
                    self.unless_deaf(
                        progress.checkpoint(Saved { done: at + 1, ballast: ballast(*bytes) }).await,
                    )?;
                    has_saved = true;
                }
            }
        }
        Ok(())
    }

    /// Sleeps for `time`. If the attempt is asked to stop, the job returns `continue_later` immediately,
    /// unless it is deaf (ignores requests to stop). The executor then decides whether the request continues
    /// in a new invocation or ends.
    async fn wait(&self, time: Duration, progress: &ProgressReporter) -> Result<(), HandlerError> {
        if self.is_deaf {
            tokio::time::sleep(time).await;
            return Ok(());
        }
        tokio::select! {
            biased;
            _ = progress.stopped() => Err(HandlerError::continue_later()),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Converts the error of a refused report to `Ok` if the job is deaf.
    fn unless_deaf(&self, reported: Result<(), ProgressError>) -> Result<(), ProgressError> {
        if self.is_deaf { Ok(()) } else { reported }
    }

    async fn finish(&self, context: &Context, run: &mut HandlerRun) -> Result<Value, HandlerError> {
        let mut bytes = 0;
        match self.end {
            JobEnd::FailUntil(attempt) if context.attempt < attempt => {
                return Err(HandlerError::retryable("BUSY", "this job fails until a later attempt"));
            }
            JobEnd::BreakUntil(attempt) if context.attempt < attempt => {
                return Err(std::io::Error::other("the job asks for this error").into());
            }
            JobEnd::RetryAfter { until, wait_ms } if context.attempt < until => {
                let wait = Duration::from_millis(wait_ms);
                return Err(
                    HandlerError::retryable("BUSY", "this job fails and asks for a delay").retry_after(wait)
                );
            }
            JobEnd::PanicUntil(attempt) if context.attempt < attempt => {
                run.ended();
                panic!("deliberate panic: the job asks for it");
            }
            JobEnd::GoOnUntil(continuations) if context.continuations < continuations => {
                context.progress.checkpoint(Saved { done: self.steps.len(), ballast: String::new() }).await?;
                return Err(HandlerError::continue_later());
            }
            JobEnd::Fail => return Err(HandlerError::failure("NO_GOOD", "this job always fails")),
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
    /// Makes the invalid report, which must be refused. If the report is accepted, the job fails with an
    /// error that no job asks for.
    async fn attempt(self, progress: &ProgressReporter) -> Result<(), HandlerError> {
        let reported = match self {
            Self::NotANumber => progress.report(f64::NAN, "wild"),
            Self::Infinite => progress.report(f64::INFINITY, "wild"),
            Self::Below => progress.report(-5.0, "wild"),
            Self::Above => progress.report(1e9, "wild"),
            Self::LongMessage => progress.report(1.0, ballast(ProgressReporter::MAX_MESSAGE_BYTES + 1)),
            Self::FatMetadata => progress.set_metadata("fat", ballast(ProgressReporter::MAX_METADATA_BYTES)),
            Self::FatCheckpoint => progress.checkpoint(ballast(ProgressReporter::MAX_CHECKPOINT_BYTES)).await,
        };
        match reported {
            Ok(()) => Err(HandlerError::failure("TAKEN", format!("invalid report {self:?} was accepted"))),
            Err(_) => Ok(()),
        }
    }
}

/// One run of a handler, which records its start, and its end when it is dropped.
struct HandlerRun {
    recorder: Recorder,
    event: HandlerEvent,
}

impl HandlerRun {
    fn begin(recorder: &Recorder, context: &Context) -> Self {
        let event = HandlerEvent {
            user: context.user.as_str().to_owned(),
            tenant: context.tenant.as_str().to_owned(),
            id: context.request_id.as_str().to_owned(),
            attempt: context.attempt,
            continuations: context.continuations,
            phase: HandlerPhase::Begin,
        };
        recorder.record(EventKind::Handler(event.clone()));
        Self { recorder: recorder.clone(), event: HandlerEvent { phase: HandlerPhase::Dropped, ..event } }
    }

    fn ended(&mut self) {
        self.event.phase = HandlerPhase::End;
    }
}

impl Drop for HandlerRun {
    fn drop(&mut self) {
        self.recorder.record(EventKind::Handler(self.event.clone()));
    }
}
