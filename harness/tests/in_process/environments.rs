//! Tests of faults in the environments of functions: killed, frozen, hanging, slow or failing to start,
//! skewed, and replaced by a deploy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, handler_fn};
use streamer::protocol::{Frame, Seq};
use streamer_harness::client::Client as WebSocket;
use streamer_harness::faults::{Call, Fault, Faults};
use streamer_harness::stage::{Services, Stage};
use streamer_harness::tables::Layout;

use crate::ann;

const ROUTER: &str = "streamer-RouterFunction";
const PROCESSOR: &str = "streamer-ProcessorFunction";
const WORKER: &str = "streamer-WorkerFunction";

/// A handler that works for the requested number of seconds and reports progress each second. It counts its
/// runs, and returns the version of the app that ran it.
#[derive(Clone, Debug, Default)]
struct Work {
    runs: Arc<AtomicU32>,
    version: u32,
}

impl Handler for Work {
    type Input = u32;
    type Output = u32;

    fn estimated_duration(&self, secs: &u32) -> Duration {
        Duration::from_secs(1) * *secs
    }

    async fn process(&self, secs: u32, context: Context) -> Result<u32, HandlerError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        for second in 1..=secs {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let percentage = f64::from(second) / f64::from(secs) * 100.0;
            context.progress.report(percentage, format!("Second {second}"))?;
        }
        Ok(self.version)
    }
}

/// Starts a stage with these faults, and returns the stage, its handler and a connected client.
async fn stage(faults: Faults) -> (Stage, Work, WebSocket) {
    let work = Work::default();
    let each = work.clone();
    let app = move |services: &Services| {
        let mut app = App::new();
        app.handle("work", Work { version: services.version, ..each.clone() }).unwrap();
        app
    };
    let stage = Stage::builder().app_with_services(app).faults(faults).start().await.unwrap();
    let ann = stage.connect(&ann()).await.unwrap();
    (stage, work, ann)
}

async fn item(stage: &Stage) -> Value {
    stage.items("RequestsTable").await.unwrap().remove(0)
}

/// Asserts that the request has exactly one terminal frame, and that sequence numbers rise.
fn assert_complete_once(frames: &[Frame]) {
    let seqs: Vec<Seq> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
            Frame::Error { seq, .. } => *seq,
            Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
        })
        .collect();
    assert!(seqs.is_sorted_by(|earlier, later| earlier < later), "{seqs:?}");
    let terminal =
        frames.iter().filter(|frame| matches!(frame, Frame::Complete { .. } | Frame::Error { .. }));
    assert_eq!(terminal.count(), 1, "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn request_of_a_killed_function_is_rerun_in_a_new_environment() {
    for awaits in [0, 1, 2, 5, 9] {
        let (stage, work, mut ann) = stage(Faults::default()).await;
        let killed = stage.faults().add(Fault::kill_midway(Call::invoke(PROCESSOR), awaits).times(1));
        ann.request("work", "r1", json!(20)).await.unwrap();
        assert_complete_once(&ann.frames_until_terminal("r1").await.unwrap());
        assert_eq!(killed.hits(), 1);
        let (runs, attempts) = (work.runs.load(Ordering::Relaxed), &item(&stage).await["attempt"]);
        assert!(
            json!(runs) == *attempts || awaits == 0,
            "each attempt runs the handler once: {runs} runs, {attempts} attempts, killed at await {awaits}"
        );
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn kill_fault_after_1000_awaits_does_not_hit_a_shorter_invocation() {
    let (stage, _, mut ann) = stage(Faults::default()).await;
    let killed = stage.faults().add(Fault::kill_midway(Call::invoke(ROUTER), 1_000));
    ann.request("work", "r1", json!(1)).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), 1);
    assert_eq!(killed.hits(), 0);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn function_frozen_until_its_lease_expires_writes_nothing_after_the_thaw() {
    let (stage, work, mut ann) = stage(Faults::default()).await;
    let freeze = Fault::freeze(Call::invoke(PROCESSOR), 8, Duration::from_mins(4));
    let frozen = stage.faults().add(freeze.times(1));
    ann.request("work", "r1", json!(20)).await.unwrap();
    ann.complete("r1").await.unwrap();
    let ended = item(&stage).await;
    assert_eq!((frozen.hits(), work.runs.load(Ordering::Relaxed)), (1, 2));
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("COMPLETED"), &json!(2)));
    // Five minutes later, the frozen function has thawed, and has seen that it lost its lease.
    stage.advance(Duration::from_mins(5)).await;
    assert_eq!(item(&stage).await, ended);
    ann.request("work", "r2", json!(1)).await.unwrap();
    ann.complete("r2").await.unwrap();
    let frames = ann.seen().iter().map(|text| serde_json::from_str::<Frame>(text).unwrap());
    let about_r1 = frames.filter(|frame| frame.request_id().is_some_and(|id| id.as_str() == "r1"));
    assert_complete_once(&about_r1.collect::<Vec<_>>());
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn hanging_function_keeps_its_environment_until_the_function_timeout() {
    let (stage, _, mut ann) = stage(Faults::default()).await;
    let hung = stage.faults().add(Fault::hang(Call::invoke(WORKER), 8).times(1));
    let begun = stage.now();
    ann.request("work", "r1", json!(60)).await.unwrap();
    assert_complete_once(&ann.frames_until_terminal("r1").await.unwrap());
    assert!(hung.hits() == 1 && stage.now().since(begun) < Duration::from_mins(5));
    let rest = Duration::from_secs(895).saturating_sub(stage.now().since(begun));
    stage.advance(rest).await;
    // Idle environments are stopped after ten minutes, so the remaining environment is the hanging
    // environment.
    let environments = || stage.functions().environments(WORKER).unwrap();
    assert_eq!(environments(), 1);
    stage.advance(Duration::from_secs(10)).await;
    assert_eq!(environments(), 0);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn request_completes_although_a_function_start_is_slow_or_fails() {
    for late in [8, 11] {
        let (stage, _, mut ann) = stage(Faults::default()).await;
        stage.functions().deploy();
        let start = || Call::init().on(PROCESSOR);
        let slow = stage.faults().add(Fault::delay(start(), Duration::from_secs(late)).times(1));
        let failed = stage.faults().add(Fault::fail(start()).times(1));
        let begun = stage.now();
        ann.request("work", "r1", json!(10)).await.unwrap();
        assert_complete_once(&ann.frames_until_terminal("r1").await.unwrap());
        assert!(stage.now().since(begun) > Duration::from_secs(18));
        assert_eq!((slow.hits(), failed.hits()), (1, 1));
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn duplicated_invocation_event_runs_its_request_once() {
    for secs in [10, 60] {
        let (stage, work, mut ann) = stage(Faults::default()).await;
        let twice = stage.faults().add(Fault::duplicate(Call::event()));
        ann.request("work", "r1", json!(secs)).await.unwrap();
        assert_complete_once(&ann.frames_until_terminal("r1").await.unwrap());
        stage.advance(Duration::from_mins(3)).await;
        assert!(twice.hits() > 0);
        assert_eq!(work.runs.load(Ordering::Relaxed), 1);
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_request_completes_although_its_dispatch_fails_once() {
    let dispatch = || Call::invoke_api().on(WORKER).by(PROCESSOR);
    for fault in [
        Fault::throttle(dispatch()),
        Fault::fail(dispatch()),
        Fault::fail_after_apply(dispatch()),
        Fault::lose_answer(dispatch()),
        Fault::delay(dispatch(), Duration::from_secs(30)),
        Fault::kill(dispatch()),
        Fault::fail(Call::event().on(WORKER)),
    ] {
        let (stage, work, mut ann) = stage(Faults::default()).await;
        let name = format!("{fault:?}");
        let injected = stage.faults().add(fault.times(1));
        ann.request("work", "r1", json!(60)).await.unwrap();
        assert_complete_once(&ann.frames_until_terminal("r1").await.unwrap());
        assert_eq!((injected.hits(), work.runs.load(Ordering::Relaxed)), (1, 1), "{name}");
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clock_skew_lasts_until_the_skewed_environment_is_replaced() {
    let app = |services: &Services| {
        let (mut app, clock) = (App::new(), Arc::clone(&services.clock));
        let now = handler_fn(move |_: Value, _| {
            let now = clock.now().as_millis();
            async move { Ok::<_, HandlerError>(now) }
        });
        app.handle("now", now).unwrap();
        app
    };
    let faults = Faults::default();
    let off = faults.add(Fault::skew(Call::init().on(ROUTER), Duration::from_secs(3)));
    let stage = Stage::builder().app_with_services(app).faults(faults).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    assert_eq!(off.hits(), 1);
    drop(off);
    for (id, before) in [("r1", 3_000), ("r2", 3_000), ("r3", 0)] {
        stage.advance(Duration::from_secs(10)).await;
        ann.request("now", id, Value::Null).await.unwrap();
        assert_eq!(ann.complete(id).await.unwrap(), stage.now().as_millis() + before, "{id}");
        if id == "r2" {
            stage.functions().deploy();
        }
    }
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deploy_lets_running_invocations_finish_and_runs_later_ones_in_the_new_version() {
    let (stage, work, mut ann) = stage(Faults::default()).await;
    ann.request("work", "r1", json!(20)).await.unwrap();
    stage.advance(Duration::from_secs(10)).await;
    assert_eq!(stage.functions().deploy(), 2);
    ann.request("work", "r2", json!(20)).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), 1);
    assert_eq!(ann.complete("r2").await.unwrap(), 2);
    assert_eq!(
        stage.functions().environments(PROCESSOR).unwrap(),
        1,
        "the environment of the old version has ended"
    );
    assert_eq!(work.runs.load(Ordering::Relaxed), 2);
    stage.shutdown().await;
}

/// Makes an app whose handler spawns a task that writes an item five seconds later, and counts successful
/// writes.
fn lingering(services: &Services, answers: &Arc<AtomicU32>) -> App {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::for_tests())
        .region(Region::new("us-east-1"))
        .http_client(services.http_client.clone());
    let (client, answers) = (Client::from_conf(config.build()), Arc::clone(answers));
    let mut app = App::new();
    let linger = handler_fn(move |id: String, _| {
        let put = client.put_item().table_name("things").item("id", AttributeValue::S(id));
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // The call fails if the SDK's own timeout has passed.
            if put.send().await.is_ok() {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
        async { Ok::<_, HandlerError>(Value::Null) }
    });
    app.handle("linger", linger).unwrap();
    app
}

#[tokio::test(start_paused = true)]
async fn task_of_a_killed_function_receives_no_answer_and_starts_no_call() {
    let answers = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&answers);
    let stage = Stage::builder().app_with_services(move |services| lingering(services, &counted));
    let stage = stage.table("things", Layout::keyed_by("id")).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    let late = Fault::delay(Call::dynamodb("PutItem").on("things"), Duration::from_secs(10));
    let _late = stage.faults().add(late.after(1).times(1));
    // The router is killed `dies_after` seconds after each reply. Each task writes after five seconds; the
    // second write takes ten seconds.
    for (id, dies_after) in [("lives", 60), ("dies during its call", 8), ("dies before its call", 2)] {
        ann.request("linger", id, json!(id)).await.unwrap();
        ann.complete(id).await.unwrap();
        stage.advance(Duration::from_secs(dies_after)).await;
        assert_eq!(stage.functions().kill(ROUTER).unwrap(), 1);
        stage.advance(Duration::from_mins(2)).await;
    }
    let during = json!({"id": "dies during its call"});
    assert_eq!(stage.items("things").await.unwrap(), [during, json!({"id": "lives"})]);
    assert_eq!(answers.load(Ordering::Relaxed), 1);
    stage.shutdown().await;
}
