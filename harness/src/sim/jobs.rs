//! What the simulated stage runs: an app whose handlers do what the payload says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};

use super::record::{Did, HandlerEvent, Recorder, What};

/// The action of [`Work`].
pub(super) const WORK: &str = "work";

/// What a request asks for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Job {
    /// How long it says it will take: what is quick, short or long.
    pub(super) estimate_ms: u64,
    /// What it does before its end.
    pub(super) steps: Vec<JobStep>,
    pub(super) end: JobEnd,
    /// Whether it goes on although it is asked to stop.
    pub(super) is_deaf: bool,
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
    /// Saves how far it has come.
    Checkpoint,
}

/// How a job ends.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum JobEnd {
    #[default]
    Succeed,
    /// Fails so that it is worth another attempt, until this attempt, which succeeds.
    FailUntil(u32),
    /// Fails for good.
    Fail,
    /// Panics until this attempt, which succeeds.
    PanicUntil(u32),
}

/// Does what a job says, and tells the recorder.
#[derive(Clone, Debug)]
pub(super) struct Work {
    recorder: Recorder,
}

/// The app of the simulated stage.
pub(super) fn app(recorder: &Recorder) -> App {
    let mut app = App::new();
    app.handle(WORK, Work { recorder: recorder.clone() }).expect("no other handler is there");
    app
}

impl Handler for Work {
    type Input = Job;
    type Output = Value;

    fn estimated_duration(&self, job: &Job) -> Duration {
        Duration::from_millis(job.estimate_ms)
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::attempts(4).base(Duration::from_secs(2)).cap(Duration::from_secs(30))
    }

    async fn process(&self, job: Job, context: Context) -> Result<Value, HandlerError> {
        let mut run = Run::begin(&self.recorder, &context);
        let begun: usize = context.checkpoint()?.unwrap_or_default();
        for (at, step) in job.steps.iter().enumerate().skip(begun) {
            if !job.is_deaf && context.progress.stop_reason().is_some() {
                run.ended();
                return Err(HandlerError::go_on_later());
            }
            match step {
                JobStep::Wait(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
                JobStep::Report(percentage) => context.progress.report(*percentage, format!("step {at}"))?,
                JobStep::Flood(reports) => {
                    for report in 0..*reports {
                        let percentage = f64::from(report) / f64::from(*reports) * 100.0;
                        context.progress.report(percentage, "flood")?;
                        tokio::task::yield_now().await;
                    }
                }
                JobStep::Checkpoint => context.progress.checkpoint(at + 1).await?,
            }
        }
        run.ended();
        match job.end {
            JobEnd::FailUntil(attempt) if context.attempt < attempt => {
                Err(HandlerError::retryable("BUSY", "not yet"))
            }
            JobEnd::PanicUntil(attempt) if context.attempt < attempt => {
                panic!("a handler panics on purpose, as its job says");
            }
            JobEnd::Fail => Err(HandlerError::failure("NO_GOOD", "it never will").fatal()),
            JobEnd::Succeed | JobEnd::FailUntil(_) | JobEnd::PanicUntil(_) => Ok(json!({
                "user": context.user.as_str(), "tenant": context.tenant.as_str(), "id": context.request_id.as_str(),
            })),
        }
    }
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
