//! One world: a stage, its clients and what goes wrong, on a clock of its own, from a plan.

use std::sync::Arc;
use std::time::Duration;

use streamer::app::App;
use streamer::ports::TokioClock;
use tokio::time::Instant;

use super::chance::{self, Seeded};
use super::check::{Checker, Final, Violation};
use super::client::Person;
use super::plan::Plan;
use super::record::{Event, Recorder, What, WorldEvent};
use super::trouble::Trouble;
use super::warm_up::warm_up;
use super::{jobs, trace};
use streamer_fakes::faults::Faults;
use streamer_fakes::lambda::LogSink;
use streamer_fakes::watch;
use streamer_harness::signing_key::SigningKey;
use streamer_harness::stage::{Services, Stage, StageBuilder, StageError};

/// Whose handlers run.
#[derive(Clone)]
pub(super) enum Cast {
    /// The simulator's own, which do what each request says.
    Jobs,
    /// A user's.
    Users(Arc<dyn Fn(&Services) -> App + Send + Sync>),
}

/// How far a world goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Until {
    /// To its end.
    End,
    /// To the first thing that breaks this rule: what it does after that, it may do for an hour.
    Broken(String),
}

impl Until {
    pub(super) fn is_reached(&self, violation: &Violation) -> bool {
        match self {
            Self::End => false,
            Self::Broken(rule) => violation.rule == *rule,
        }
    }
}

/// What a world came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) violations: Vec<Violation>,
    /// How all stood in the end; empty if it was stopped before.
    pub(super) last: Final,
    /// Whether it was stopped before its end.
    pub(super) was_stopped: bool,
    /// How much time has passed in it.
    pub(super) lasted: Duration,
}

impl Outcome {
    /// Every event, a line each: the same bytes for the same plan.
    pub(super) fn trace(&self) -> String {
        trace::text(&self.events)
    }
}

/// The longest that anything may take to end once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_mins(60);
/// How long the stage is left alone at the end, so that what should not happen any more can: a whole run of the sweeper lies
/// within.
const AFTERMATH: Duration = Duration::from_secs(65);
/// How often is looked whether all has settled.
const LOOK: Duration = Duration::from_secs(5);

/// What a task may wait for after the stage's end: for an environment to have been idle for ten minutes.
const LAST_TASKS: Duration = Duration::from_mins(11);

/// Runs a plan, on this thread.
pub(super) fn run(plan: &Plan, cast: &Cast, until: &Until) -> Result<Outcome, StageError> {
    warm_up()?;
    // The SDK's jitter and its tokens come from this thread's generator.
    fastrand::seed(chance::rng(plan.seed, "sdk").u64(..));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| StageError::Stopped(format!("there is no runtime to be had: {error}")))?;
    runtime.block_on(live(plan, cast, until))
}

async fn live(plan: &Plan, cast: &Cast, until: &Until) -> Result<Outcome, StageError> {
    let begun = Instant::now();
    let clock = Arc::new(TokioClock::starting_at(StageBuilder::STARTS_AT));
    let recorder = Recorder::new(clock, Checker::new(plan), until.clone());
    let ended = tokio::select! {
        biased;
        () = recorder.until() => None,
        ended = Box::pin(story(plan, cast, &recorder)) => Some(ended?),
    };
    let was_stopped = ended.is_none();
    let (last, lasted) = ended.unwrap_or_else(|| (Final::default(), begun.elapsed()));
    let mut kept = recorder.kept();
    if !was_stopped {
        kept.checker.finish(&last);
    }
    let violations = kept.checker.violations().to_vec();
    Ok(Outcome { events: std::mem::take(&mut kept.events), violations, last, was_stopped, lasted })
}

/// All of it: gives how it stands in the end, and how long that took.
async fn story(plan: &Plan, cast: &Cast, recorder: &Recorder) -> Result<(Final, Duration), StageError> {
    let begun = Instant::now();
    let faults = Faults::default();
    faults.set_observer(Arc::new(recorder.clone()));
    let mut stage = Box::pin(builder(plan, cast, recorder, faults)?.start()).await?;

    recorder.record(What::World(WorldEvent::Begin));
    let trouble = Trouble::begin(plan, &stage, recorder);
    let calm = watch::Sender::new(false);
    let clients = plan.clients.iter().enumerate();
    let persons = clients.map(|(number, client)| {
        Person::new(number, client, &stage, recorder).live(calm.subscribe(), PATIENCE)
    });
    let weather = async {
        tokio::time::sleep(Duration::from_millis(plan.trouble_ms)).await;
        trouble.end();
        recorder.record(What::World(WorldEvent::Calm));
        calm.send_replace(true);
    };
    tokio::join!(weather, futures_util::future::join_all(persons));

    let deadline = Instant::now() + PATIENCE;
    while !has_settled(&stage).await? && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(AFTERMATH).await;
    recorder.record(What::World(WorldEvent::Settled));
    let mut last = look(&stage, recorder).await?;
    stage.end().await;
    recorder.record(What::World(WorldEvent::End));
    let lasted = begun.elapsed();
    tokio::time::sleep(LAST_TASKS).await;
    if let Cast::Jobs = cast {
        // What a user's handlers have spawned ends with their process on AWS, and here with the world.
        last.tasks_left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    }
    Ok((last, lasted))
}

fn builder(
    plan: &Plan,
    cast: &Cast,
    recorder: &Recorder,
    faults: Faults,
) -> Result<StageBuilder, StageError> {
    let mut builder = Stage::builder()
        .entropy(Arc::new(Seeded::new(plan.seed, "stage")))
        .signing_key(SigningKey::from_seed(plan.seed).map_err(StageError::NoKey)?)
        .log(Arc::new(NoLog))
        .faults(faults)
        .parameter("CancelOnDisconnect", plan.stage.cancel_on_disconnect.to_string());
    builder = match cast {
        Cast::Jobs => {
            let recorder = recorder.clone();
            builder.app_of_each(move || jobs::app(&recorder))
        }
        Cast::Users(app) => {
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

/// Whether no request is left for the sweeper to see to.
async fn has_settled(stage: &Stage) -> Result<bool, StageError> {
    let requests = stage.items("RequestsTable").await?;
    Ok(requests.iter().all(|request| request.get("timer_shard").is_none()))
}

async fn look(stage: &Stage, recorder: &Recorder) -> Result<Final, StageError> {
    let bodies = |queue: &str| -> Vec<String> {
        let messages = stage.queues().messages(queue).unwrap_or_default();
        messages.into_iter().map(|message| message.body).collect()
    };
    Ok(Final {
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
