//! One world: a stage, its clients and what goes wrong, on a clock of its own, from a plan.

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

/// Whose handlers run.
#[derive(Clone)]
pub(super) enum AppUnderTest {
    /// The simulator's own, which do what each request says.
    Jobs,
    /// A user's.
    Users(Arc<dyn Fn(&Services) -> App + Send + Sync>),
}

/// What a world came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) violations: Vec<Violation>,
    /// How all stood in the end; empty if it was stopped before.
    pub(super) last: FinalState,
    /// Whether it was stopped before its end.
    pub(super) was_stopped: bool,
    /// How much time has passed in it.
    pub(super) lasted: Duration,
}

/// The longest that anything may take to end once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_mins(60);
/// How long the stage is left alone at the end, so that what should not happen any more can: a whole run of the sweeper lies
/// within.
const QUIET_TIME: Duration = Duration::from_secs(65);
/// How often is looked whether all has settled.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What a task may wait for after the stage's end: for an environment to have been idle for ten minutes.
const LAST_TASKS: Duration = Duration::from_mins(11);

/// Makes the world of a plan, on this thread.
pub(super) fn execute(plan: &Plan, app: &AppUnderTest, until: &Until) -> Result<Outcome, StageError> {
    warm_up(|plan| execute_warm(plan, &AppUnderTest::Jobs, &Until::End).map(drop))?;
    execute_warm(plan, app, until)
}

/// As [`execute`], where all that is made once is made.
fn execute_warm(plan: &Plan, app: &AppUnderTest, until: &Until) -> Result<Outcome, StageError> {
    // The SDK's jitter and its tokens come from this thread's generator.
    fastrand::seed(chance::rng(plan.seed, "sdk").u64(..));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| StageError::Stopped(format!("there is no runtime to be had: {error}")))?;
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

/// All of it: gives how it stands in the end, and how long that took.
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
        // What a user's handlers have spawned ends with their process on AWS, and here with the world.
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
            builder.app_of_each(move || handlers::app(&recorder))
        }
        AppUnderTest::Users(app) => {
            let app = Arc::clone(app);
            builder.app_with(move |services| app(services))
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

/// Whether no request is left for the sweeper to handle.
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

/// Nobody reads what ten thousand worlds log.
#[derive(Debug)]
struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _function: &str, _line: &str) {}
}
