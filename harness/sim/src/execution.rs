//! Executes one plan: runs a stage, its clients and its faults on a virtual clock.

use std::sync::Arc;
use std::time::Duration;

use streamer::app::App;
use streamer::ports::TokioClock;
use tokio::time::Instant;

use super::chance::{self, Seeded};
use super::check::{Checker, FinalState, Violation};
use super::client::SimClient;
use super::event::{Event, EventKind, WorldEvent};
use super::handlers;
use super::inject::Injector;
use super::plan::Plan;
use super::recorder::{Recorder, Until};
use super::warm_up::warm_up;
use streamer_fakes::faults::Faults;
use streamer_fakes::lambda::LogSink;
use streamer_fakes::watch;
use streamer_harness::signing_key::SigningKey;
use streamer_harness::stage::{Services, Stage, StageBuilder, StageError};

/// The app whose handlers run in a world.
#[derive(Clone)]
pub(super) enum AppUnderTest {
    /// The simulator's own handlers, which execute the job in each request's payload.
    Jobs,
    /// Creates a user's app; called once for each environment of a function.
    Users(Arc<dyn Fn(&Services) -> App + Send + Sync>),
}

/// Result of executing a plan.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) violations: Vec<Violation>,
    /// Tables and queues at the end of the world; empty if the run was stopped early.
    pub(super) last: FinalState,
    /// True if the run was stopped early, at the violation of the rule that `Until::Broken` names.
    pub(super) was_stopped: bool,
    /// Virtual time that passed in the world.
    pub(super) lasted: Duration,
}

/// Longest virtual time for which clients wait for their requests after the faults have ended. The stage gets
/// the same time again to settle.
const PATIENCE: Duration = Duration::from_mins(60);
/// Virtual time for which a settled stage keeps running, so that the checker detects late violations. At
/// least one sweep falls within it.
const QUIET_TIME: Duration = Duration::from_secs(65);
/// Interval at which the world checks whether the stage has settled.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Virtual time between the shutdown of the stage and the count of leftover tasks. A task may still wait for
/// an environment's idle limit of ten minutes.
const LAST_TASKS: Duration = Duration::from_mins(11);

/// Executes a plan on this thread. The first call on a thread does a warm-up run before the plan.
pub(super) fn execute(plan: &Plan, app: &AppUnderTest, until: &Until) -> Result<Outcome, StageError> {
    warm_up(|plan| execute_warm(plan, &AppUnderTest::Jobs, &Until::End).map(drop))?;
    execute_warm(plan, app, until)
}

/// Executes a plan on a thread that has done its warm-up run.
fn execute_warm(plan: &Plan, app: &AppUnderTest, until: &Until) -> Result<Outcome, StageError> {
    // The AWS SDK draws its jitter and idempotency tokens from this thread's generator.
    fastrand::seed(chance::rng(plan.seed, "sdk").u64(..));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| StageError::Stopped(format!("tokio runtime not created: {error}")))?;
    runtime.block_on(record(plan, app, until))
}

async fn record(plan: &Plan, app: &AppUnderTest, until: &Until) -> Result<Outcome, StageError> {
    let begun = Instant::now();
    let clock = Arc::new(TokioClock::starting_at(StageBuilder::STARTS_AT));
    let recorder = Recorder::new(clock, Checker::new(plan), until.clone());
    let ended = tokio::select! {
        biased;
        () = recorder.until() => None,
        ended = Box::pin(play(plan, app, &recorder)) => Some(ended?),
    };
    let was_stopped = ended.is_none();
    let (last, lasted) = ended.unwrap_or_else(|| (FinalState::default(), begun.elapsed()));
    let mut recorded = recorder.recorded();
    if !was_stopped {
        recorded.checker.finish(&last);
    }
    let violations = recorded.checker.violations().to_vec();
    Ok(Outcome { events: std::mem::take(&mut recorded.events), violations, last, was_stopped, lasted })
}

/// Runs the stage, its clients and its faults to the end. Returns the final state and the virtual time that
/// passed.
async fn play(
    plan: &Plan,
    app: &AppUnderTest,
    recorder: &Recorder,
) -> Result<(FinalState, Duration), StageError> {
    let begun = Instant::now();
    let faults = Faults::default();
    faults.set_observer(Arc::new(recorder.clone()));
    let mut stage = Box::pin(builder(plan, app, recorder, faults)?.start()).await?;

    recorder.record(EventKind::World(WorldEvent::Begin));
    let injector = Injector::start(plan, &stage, recorder);
    let faults_ended = watch::Sender::new(false);
    let clients = plan.clients.iter().enumerate();
    let clients = clients.map(|(number, client)| {
        SimClient::new(number, client, &stage, recorder).run(faults_ended.subscribe(), PATIENCE)
    });
    let faults = async {
        tokio::time::sleep(Duration::from_millis(plan.faults_until_ms)).await;
        injector.stop();
        recorder.record(EventKind::World(WorldEvent::FaultsEnded));
        faults_ended.send_replace(true);
    };
    tokio::join!(faults, futures_util::future::join_all(clients));

    let deadline = Instant::now() + PATIENCE;
    while !has_settled(&stage).await? && Instant::now() < deadline {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    tokio::time::sleep(QUIET_TIME).await;
    recorder.record(EventKind::World(WorldEvent::Settled));
    let mut last = final_state(&stage, recorder).await?;
    stage.end().await;
    recorder.record(EventKind::World(WorldEvent::End));
    let lasted = begun.elapsed();
    tokio::time::sleep(LAST_TASKS).await;
    if let AppUnderTest::Jobs = app {
        // Tasks that a user's handlers have spawned are not counted: on AWS they end with the process.
        last.tasks_left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    }
    Ok((last, lasted))
}

fn builder(
    plan: &Plan,
    app: &AppUnderTest,
    recorder: &Recorder,
    faults: Faults,
) -> Result<StageBuilder, StageError> {
    let mut builder = Stage::builder()
        .entropy(Arc::new(Seeded::new(plan.seed, "stage")))
        .signing_key(SigningKey::from_seed(plan.seed).map_err(StageError::NoKey)?)
        .log(Arc::new(NoLog))
        .faults(faults)
        .parameter("CancelOnDisconnect", plan.stage.cancel_on_disconnect.to_string());
    builder = match app {
        AppUnderTest::Jobs => {
            let recorder = recorder.clone();
            builder.app_per_environment(move || handlers::app(&recorder))
        }
        AppUnderTest::Users(app) => {
            let app = Arc::clone(app);
            builder.app_with_services(move |services| app(services))
        }
    };
    for (name, value) in &plan.stage.variables {
        builder = builder.variable(name, value);
    }
    for (function, reserved) in &plan.stage.concurrency {
        builder = builder.concurrency(function, *reserved);
    }
    if plan.stage.shards > 0 {
        builder = builder.shards_per_stream(plan.stage.shards);
    }
    if plan.stage.shard_lifetime_ms > 0 {
        builder = builder.shard_lifetime(Duration::from_millis(plan.stage.shard_lifetime_ms));
    }
    Ok(builder)
}

/// Returns whether the timer index is empty, so that no request is left for the sweeper to handle.
async fn has_settled(stage: &Stage) -> Result<bool, StageError> {
    let requests = stage.items("RequestsTable").await?;
    Ok(requests.iter().all(|request| request.get("timer_shard").is_none()))
}

async fn final_state(stage: &Stage, recorder: &Recorder) -> Result<FinalState, StageError> {
    let bodies = |queue: &str| -> Vec<String> {
        let messages = stage.queues().messages(queue).unwrap_or_default();
        messages.into_iter().map(|message| message.body).collect()
    };
    Ok(FinalState {
        at: recorder.now(),
        requests: stage.items("RequestsTable").await?,
        connections: stage.items("ConnectionsTable").await?,
        dead_letters: bodies("streamer-DeadLetterQueue"),
        stream_failures: bodies("streamer-StreamFailureQueue"),
        tasks_left: 0,
    })
}

/// Discards all log lines: the checker uses only a world's events, and logs of thousands of worlds would cost
/// time.
#[derive(Debug)]
struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _function: &str, _line: &str) {}
}
