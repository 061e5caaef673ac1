use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insta::assert_snapshot;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::middleware::{
    BoxError, Call, CallError, Logging, Metrics, Next, Phase, Reply, RequirePermission, from_fn,
    when_processing, when_routing,
};
use streamer::ports::{Clock, Timestamp};
use streamer::protocol::{ErrorBody, ErrorCode, FieldError, Frame};
use streamer::store::{Ending, Status};
use streamer::telemetry::{MetricLine, MetricSink};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;

use crate::world::{World, message};

async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

/// Handler whose payload is a number of seconds, which is both its estimated duration and the time it sleeps.
struct Sleeper;

impl Handler for Sleeper {
    type Input = u64;
    type Output = u64;

    fn estimated_duration(&self, seconds: &u64) -> Duration {
        Duration::from_secs(*seconds)
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::never()
    }

    async fn process(&self, seconds: u64, _: Context) -> Result<u64, HandlerError> {
        sleep(Duration::from_secs(seconds)).await;
        Ok(seconds)
    }
}

fn sleeper_app() -> App {
    let mut app = App::new();
    app.handle("takes", Sleeper).unwrap();
    app
}

/// Names of the steps that the calls have taken, in order. The list is a static, because a test cannot pass a list
/// to `Steps::deserialize`.
static STEPS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn step(name: impl Into<String>) {
    STEPS.lock().unwrap().push(name.into());
}

fn steps() -> String {
    let steps = std::mem::take(&mut *STEPS.lock().unwrap());
    if steps.is_empty() { "nothing".into() } else { steps.join(" → ") }
}

/// Returns a layer that records when a call enters the layer and when the reply leaves the layer.
fn traced(name: &'static str) -> streamer::middleware::FromFn<impl Fn(Call, Next) -> Traced + Send + Sync> {
    from_fn(move |call: Call, next: Next| -> Traced {
        Box::pin(async move {
            step(format!("{name} ({})", call.phase.as_str()));
            let reply = next.run(call).await;
            step(format!("back at {name}"));
            reply
        })
    })
}

type Traced = std::pin::Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

/// Payload of [`EachStep`]: an estimated duration, in seconds. Its deserialization records the step `read`.
struct Steps(Duration);

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        step("read");
        u64::deserialize(deserializer).map(|seconds| Self(Duration::from_secs(seconds)))
    }
}

/// Handler that records a step each time one of its methods is called.
struct EachStep;

impl Handler for EachStep {
    type Input = Steps;
    type Output = ();

    fn required_permission(&self) -> Option<&str> {
        step("permission");
        Some("steps")
    }

    fn validate(&self, _: &Steps) -> Result<(), Vec<FieldError>> {
        step("validate");
        Ok(())
    }

    fn estimated_duration(&self, input: &Steps) -> Duration {
        step("estimate");
        input.0
    }

    async fn process(&self, _: Steps, _: Context) -> Result<(), HandlerError> {
        step("handler");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn router_and_processor_run_the_layers_of_a_call_in_the_same_order() {
    let mut app = App::new();
    app.layer(traced("app, first added"))
        .handle_with("steps", EachStep, (traced("action, first"), traced("action, second")))
        .unwrap()
        .layer(traced("app, last added"));
    let world = World::new(app).await;
    world.grant("ann", &["steps"]).await;
    let mut traces = Vec::new();

    world.ask("steps", "quick", json!(1)).await;
    traces.push(format!("quick: {}", steps()));
    world.ask("steps", "queued", json!(60)).await;
    traces.push(format!("queued: {}", steps()));
    world.process().await;
    traces.push(format!("run: {}", steps()));
    world.say("c-bob", json!({"action": "steps", "id": "not permitted", "payload": 1})).await;
    traces.push(format!("not permitted: {}", steps()));
    world.ask("steps", "wrong", json!("soon")).await;
    traces.push(format!("wrong: {}", steps()));
    world.ask("fly", "unknown", json!(1)).await;
    traces.push(format!("unknown: {}", steps()));
    world.ask("status", "built in", json!({"request_id": "queued"})).await;
    traces.push(format!("built in: {}", steps()));
    assert_snapshot!(traces.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn error_kind_of_a_failed_layer_decides_the_error_code_that_the_client_receives() {
    #[derive(Debug)]
    struct Wrapped(BoxError);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a layer's own secret")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&*self.0)
        }
    }

    async fn fail(call: Call, _: Next) -> Result<Reply, BoxError> {
        let closed = || {
            let body = ErrorBody::new("CLOSED".into(), "We are closed").with_detail("until", "Monday");
            CallError::refused(body)
        };
        let fault = call.context.metadata["fail"].as_str();
        // In a fault whose name ends in "within", the error that decides the answer is wrapped in an outer error.
        Err(match fault {
            "refuse" => closed().with_source("the door is locked").into(),
            "refuse within" => Wrapped(closed().into()).into(),
            "handler" => CallError::from(HandlerError::failure("DECLINED", "Declined")).into(),
            "time out" => tower::timeout::error::Elapsed::new().into(),
            "overload within" => Wrapped(tower::load_shed::error::Overloaded::new().into()).into(),
            "break" => "the database's password is wrong".into(),
            _ => panic!("a bug in the layer"),
        })
    }

    let mut app = App::new();
    app.handle("echo", echo).unwrap().handle_with("failing", echo, from_fn(fail)).unwrap();
    let world = World::new(app).await;
    let mut answers = Vec::new();
    for fault in ["refuse", "refuse within", "handler", "time out", "overload within", "break", "panic"] {
        let body = json!({"action": "failing", "id": "r1", "metadata": {"fail": fault}});
        answers.push(format!("{fault}\n← {}", world.say("c-ann", body).await));
    }
    let after = world.ask("echo", "r2", json!(1)).await;
    assert!(
        matches!(after, Frame::Response { success: true, .. }),
        "a call succeeds after a layer has panicked in an earlier call: {after:?}"
    );
    assert_snapshot!(answers.join("\n\n"));
}

#[tokio::test(start_paused = true)]
async fn wrapped_refusal_is_logged_with_its_source_but_sent_to_the_client_without_the_wrapper() {
    #[derive(Debug)]
    struct Wrapped(CallError);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("while billing")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    async fn fail(call: Call, _: Next) -> Result<Reply, BoxError> {
        let closed = CallError::refused(ErrorBody::new("CLOSED".into(), "We are closed"));
        let has_source = call.payload.as_str() == Some("broken");
        Err(Wrapped(if has_source { closed.with_source("the door is locked") } else { closed }).into())
    }

    let mut app = App::new();
    app.handle_with("failing", echo, from_fn(fail)).unwrap();
    let world = World::new(app).await;
    let lines = Lines::default();
    let logging = lines.collect(tracing::Level::WARN);
    let answers =
        [world.ask("failing", "r1", json!("broken")).await, world.ask("failing", "r1", json!(1)).await];
    drop(logging);
    assert_eq!(answers[0], answers[1], "the error's source does not change the answer to the client");
    assert_snapshot!(lines.taken(), @r#"{"level":"WARN","message":"request failed in the router","request_id":"r1","error":"CLOSED: We are closed: while billing: CLOSED: We are closed: the door is locked","target":"streamer::router"}"#);
}

#[tokio::test(start_paused = true)]
async fn metrics_ignore_action_renames_by_layers_and_built_in_actions_cannot_be_renamed() {
    async fn rename(mut call: Call, next: Next) -> Result<Reply, BoxError> {
        if let Some(to) = call.context.metadata.get("to") {
            call.context.action.clone_from(to);
        }
        next.run(call).await
    }

    let (lines, metrics) = (Lines::default(), Lines::default());
    let mut app = sleeper_app();
    app.handle("echo", echo).unwrap().fallback(echo).unwrap();
    app.layer(Metrics::to(Arc::new(metrics.clone()), Arc::new(FixedClock))).layer(from_fn(rename));
    let world = World::new(app).await;
    let logging = lines.collect(tracing::Level::WARN);
    let mut report = Vec::new();
    for (action, to) in [
        ("takes", "echo"),
        ("takes", "made up by a client"),
        ("fly", "echo"),
        ("fly", "made up by a client"),
        ("ping", "status"),
        ("ping", "echo"),
        ("echo", "ping"),
        ("fly", "ping"),
    ] {
        let body = json!({"action": action, "id": "r1", "payload": 1, "metadata": {"to": to}});
        let answer: Frame = serde_json::from_str(&world.say("c-ann", body).await).unwrap();
        let answer = if let Frame::Error { error, .. } = answer {
            error.code.to_string()
        } else if let Frame::Response { data: Some(data), .. } = answer {
            data.to_string()
        } else {
            panic!("each call is answered with an error or with a response that has data: {answer:?}")
        };
        let measured: Value = serde_json::from_str(&metrics.taken()).unwrap();
        let measured = measured["Action"].as_str().unwrap().to_owned();
        report.push(format!("{action} → {to}: {answer}, measured as {measured}"));
    }
    drop(logging);
    assert_snapshot!(report.join("\n"), @r#"
    takes → echo: 1, measured as takes
    takes → made up by a client: 1, measured as takes
    fly → echo: 1, measured as fallback
    fly → made up by a client: 1, measured as fallback
    ping → status: {"pong":true,"timestamp":1700000000}, measured as ping
    ping → echo: PROCESSING_FAILED, measured as ping
    echo → ping: PROCESSING_FAILED, measured as echo
    fly → ping: PROCESSING_FAILED, measured as fallback
    "#);
    let logged = lines.taken();
    assert_eq!(logged.lines().count(), 3, "each refused rename is logged once: {logged}");
    assert!(
        logged.contains("a layer renamed ping to echo; built-in actions cannot be renamed or replaced"),
        "{logged}"
    );
}

#[tokio::test(start_paused = true)]
async fn layer_that_refuses_a_queued_request_fails_the_request_with_the_layers_error() {
    let refuse = async |_: Call, _: Next| -> Result<Reply, BoxError> {
        Err(CallError::refused(ErrorBody::new("CLOSED".into(), "We are closed")).into())
    };
    let mut app = sleeper_app();
    app.layer(when_processing(from_fn(refuse)));
    let world = World::new(app).await;
    assert!(matches!(world.ask("takes", "r1", json!(1)).await, Frame::Response { success: true, .. }));
    world.ask("takes", "r2", json!(60)).await;
    world.process().await;
    let Some(Ending::Failed(stored)) = world.request("r2").await.ending else {
        panic!("r2 is stored as FAILED")
    };
    assert_eq!((stored.code.as_str(), stored.message.as_str()), ("CLOSED", "We are closed"));
    let frames = world.clients.frames("c-ann");
    assert!(matches!(&frames[..], [Frame::Error { error, .. }] if *error == stored), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn layer_can_answer_a_call_queue_a_call_or_change_its_action_and_payload() {
    async fn first(mut call: Call, next: Next) -> Result<Reply, BoxError> {
        match (&call.phase, call.context.metadata.get("do").map(String::as_str)) {
            (_, Some("answer")) => Ok(Reply::Done(json!("from the cache"))),
            (Phase::Routing(_), Some("queue")) => Ok(Reply::Queue { estimated_duration: Duration::ZERO }),
            (_, Some("queue again")) => Ok(Reply::Queue { estimated_duration: Duration::ZERO }),
            (_, Some("rename")) => {
                call.context.action = "echo".into();
                call.payload = json!("renamed").into();
                next.run(call).await
            }
            _ => next.run(call).await,
        }
    }

    let mut app = sleeper_app();
    app.handle("echo", echo).unwrap().layer(from_fn(first));
    let world = World::new(app).await;
    let mut answers = Vec::new();
    for (id, command) in [("r1", "answer"), ("r2", "queue"), ("r3", "queue again"), ("r4", "rename")] {
        let body = json!({"action": "takes", "id": id, "payload": 1, "metadata": {"do": command}});
        answers.push(format!("{command}\n← {}", world.say("c-ann", body).await));
    }
    assert_snapshot!(answers.join("\n\n"));
    assert_eq!(
        world.request("r2").await.payload,
        json!(1),
        "r2 is queued with the payload that the client sent"
    );
    world.process().await;
    assert_eq!(world.request("r2").await.ending, Some(Ending::Completed(json!(1))));
    let Some(Ending::Failed(error)) = world.request("r3").await.ending else {
        panic!("r3 fails, because a layer cannot queue a request again when it runs")
    };
    assert_eq!(error.code, ErrorCode::ProcessingFailed);
}

#[tokio::test(start_paused = true)]
async fn permission_is_checked_before_payload_parsing_but_not_when_the_queued_request_runs() {
    struct Deletes;

    impl Handler for Deletes {
        type Input = u64;
        type Output = ();

        fn required_permission(&self) -> Option<&str> {
            Some("delete")
        }

        fn estimated_duration(&self, seconds: &u64) -> Duration {
            Duration::from_secs(*seconds)
        }

        async fn process(&self, _: u64, _: Context) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    let mut app = App::new();
    app.handle("delete", Deletes).unwrap();
    app.handle_with("audit", echo, RequirePermission::new("audit")).unwrap();
    let world = World::new(app).await;
    world.grant("bob", &["delete", "audi"]).await;
    let mut answers = Vec::new();
    for (connection, action, payload) in
        [("c-ann", "delete", json!("no number")), ("c-bob", "delete", json!(1)), ("c-bob", "audit", json!(1))]
    {
        let body =
            json!({"action": action, "id": "r1", "payload": payload, "metadata": {"permissions": "audit"}});
        answers.push(world.say(connection, body).await);
    }
    assert_snapshot!(answers.join("\n"), @r#"
    {"type":"error","request_id":"r1","error":{"code":"FORBIDDEN","message":"The permission \"delete\" is required","details":{"permission":"delete"}},"timestamp":1700000000}
    {"type":"response","request_id":"r1","success":true,"data":null}
    {"type":"error","request_id":"r1","error":{"code":"FORBIDDEN","message":"The permission \"audit\" is required","details":{"permission":"audit"}},"timestamp":1700000000}
    "#);

    // The queued request completes although its connection, which held the permission, no longer exists.
    world.say("c-bob", json!({"action": "delete", "id": "r2", "payload": 60})).await;
    world.disconnect("c-bob").await;
    world.process().await;
    assert!(matches!(world.clients.frames("c-bob")[..], [Frame::Complete { .. }]));
}

#[tokio::test(start_paused = true)]
async fn tower_timeout_layers_limit_quick_and_queued_requests_separately() {
    let mut app = sleeper_app();
    app.layer(when_routing(TimeoutLayer::new(Duration::from_secs(2))));
    app.layer(when_processing(TimeoutLayer::new(Duration::from_secs(30))));
    let world = World::new(app).await;
    assert!(matches!(world.ask("takes", "r1", json!(1)).await, Frame::Response { success: true, .. }));
    let Frame::Error { error, .. } = world.ask("takes", "r2", json!(3)).await else {
        panic!("r2 is answered with an error, because it times out")
    };
    assert_eq!(error.code, ErrorCode::Timeout);
    world.ask("takes", "r3", json!(29)).await;
    world.ask("takes", "r4", json!(31)).await;
    world.process().await;
    assert_eq!(world.request("r3").await.status, Status::Completed);
    let Some(Ending::Failed(error)) = world.request("r4").await.ending else {
        panic!("r4 is stored as FAILED, because it times out")
    };
    assert_eq!(error.code, ErrorCode::Timeout);
}

#[tokio::test(start_paused = true)]
async fn concurrency_limit_layer_spans_all_actions_and_load_shed_layer_refuses_excess_calls() {
    // The load-shed layer refuses a call if the service below is not ready. The custom layer `between` must
    // therefore report that it is not ready whenever the concurrency-limit layer is not ready.
    let mut app = sleeper_app();
    app.handle("takes_too", Sleeper).unwrap();
    let between = from_fn(async |call: Call, next: Next| next.run(call).await);
    app.layer(ConcurrencyLimitLayer::new(2)).layer(between).layer(when_routing(LoadShedLayer::new()));
    // `Logging` is the outermost layer, so that calls refused by the load-shed layer are logged too.
    app.layer(Logging);
    let world = World::new(app).await;
    let ask = |action, id| world.ask(action, id, json!(2));
    let lines = Lines::default();
    let logging = lines.collect(tracing::Level::INFO);
    let (one, two, three) = tokio::join!(ask("takes", "r1"), ask("takes_too", "r2"), ask("takes", "r3"));
    assert!(matches!(one, Frame::Response { success: true, .. }), "{one:?}");
    assert!(matches!(two, Frame::Response { success: true, .. }), "{two:?}");
    let Frame::Error { error, .. } = three else { panic!("the third call is refused: {three:?}") };
    assert_eq!(error.code, ErrorCode::RateLimited);
    drop(logging);
    let logged = lines.taken();
    assert_eq!((logged.lines().count(), logged.matches("RATE_LIMITED").count()), (3, 1), "{logged}");
    assert!(
        matches!(ask("takes", "r4").await, Frame::Response { success: true, .. }),
        "a call after the burst succeeds"
    );

    // The load-shed layer applies to the router only. In the processor, calls above the concurrency limit wait.
    for id in ["q1", "q2", "q3"] {
        world.ask("takes", id, json!(10)).await;
    }
    let started = tokio::time::Instant::now();
    world.process().await;
    assert_eq!(started.elapsed(), Duration::from_secs(20));
    for id in ["q1", "q2", "q3"] {
        assert_eq!(world.request(id).await.status, Status::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_the_concurrency_limit_or_is_abandoned_is_logged_and_measured() {
    let (lines, metrics) = (Lines::default(), Lines::default());
    let mut app = sleeper_app();
    app.layer(ConcurrencyLimitLayer::new(1)).layer(Logging);
    app.layer(Metrics::to(Arc::new(metrics.clone()), Arc::new(FixedClock)));
    let mut world = World::new(app).await;
    world.router.set_async_threshold(Duration::from_mins(10));
    let logging = lines.collect(tracing::Level::INFO);
    let ask = |id, seconds| world.ask("takes", id, json!(seconds));
    tokio::join!(ask("first", 20), ask("waits", 1), ask("gives up", 10));
    drop(logging);
    let columns = |lines: Lines, fields: &[&str]| {
        let lines = lines.taken();
        let row = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            fields.iter().map(|field| line[field].to_string()).collect::<Vec<_>>().join(" ")
        };
        lines.lines().map(row).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(columns(lines, &["request_id", "outcome", "duration_ms"]), @r#"
    "first" "done" 20000
    "waits" "done" 21000
    "gives up" "abandoned" 25000
    "#);
    assert_snapshot!(columns(metrics, &["outcome", "Duration"]), @r#"
    "done" 20000
    "done" 21000
    "abandoned" 25000
    "#);
}

#[tokio::test(start_paused = true)]
async fn layer_builds_its_service_once_and_unknown_actions_never_reach_the_service() {
    #[derive(Clone, Default)]
    struct Counted {
        made: Arc<Mutex<u32>>,
        called: Arc<Mutex<u32>>,
    }

    impl tower::Layer<Next> for Counted {
        type Service = Next;

        fn layer(&self, next: Next) -> Next {
            *self.made.lock().unwrap() += 1;
            let called = Arc::clone(&self.called);
            let counting = move |call: Call, next: Next| {
                *called.lock().unwrap() += 1;
                next.run(call)
            };
            tower::Layer::layer(&from_fn(counting), next)
        }
    }

    let counted = Counted::default();
    let mut app = App::new();
    app.layer(counted.clone()).handle("echo", echo).unwrap();
    let world = World::new(app).await;
    for id in 0..3 {
        world.ask("echo", &id.to_string(), json!(1)).await;
    }
    let ledger = world.db.ledger();
    for id in 0..1_000 {
        let Frame::Error { error, .. } = world.ask("fly", &id.to_string(), json!(1)).await else {
            panic!("an unknown action is answered with an error")
        };
        assert_eq!(error.code, ErrorCode::InvalidAction);
    }
    assert_eq!((*counted.made.lock().unwrap(), *counted.called.lock().unwrap()), (1, 3));
    assert_eq!(ledger.take().to_string(), "no calls");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn fallback_handler_answers_actions_without_a_handler_but_not_built_in_actions() {
    async fn relay(_: Value, context: Context) -> Result<String, HandlerError> {
        Ok(format!("{} is for another service", context.action))
    }

    let mut app = sleeper_app();
    app.fallback(relay).unwrap();
    let world = World::new(app).await;
    let answer = world.say("c-ann", r#"{"action":"fly","id":"r1"}"#).await;
    assert_snapshot!(answer, @r#"{"type":"response","request_id":"r1","success":true,"data":"fly is for another service"}"#);
    assert!(
        matches!(world.ask("ping", "r2", json!(1)).await, Frame::Response { data: Some(data), .. } if data["pong"] == true)
    );
}

#[tokio::test]
async fn ping_runs_through_app_layers_and_is_answered_while_a_handler_blocks_its_thread() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let mut app = App::new();
    let hold = move |_: Value| {
        let _ = held.lock().unwrap().recv();
        std::future::ready(Ok(()))
    };
    app.handle("hold", hold).unwrap().layer(RequirePermission::new("ask"));
    let world = World::new(App::new()).await;
    world.grant("ann", &["ask"]).await;
    let handlers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let router = world.router_with(app, handlers.handle().clone());
    let say = |connection, body| {
        let event = message(connection, json!(body), false);
        let router = &router;
        async move { router.route(&event).await }
    };
    let asked = async {
        let ping = say("c-ann", r#"{"action":"ping","id":"r2"}"#).await;
        assert!(ping.contains("\"pong\":true"), "{ping}");
        let refused = say("c-bob", r#"{"action":"ping","id":"r3"}"#).await;
        assert!(refused.contains("FORBIDDEN"), "{refused}");
        release.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(say("c-ann", r#"{"action":"hold","id":"r1"}"#), asked);
    assert!(answer.contains("\"success\":true"), "{answer}");
    handlers.shutdown_background();
}

#[tokio::test]
async fn handler_that_blocks_its_thread_past_its_timeout_delays_no_later_request() {
    // The two `hold` calls block their threads at the barrier until the test's own thread reaches the barrier.
    let released = Arc::new(std::sync::Barrier::new(3));
    let held = Arc::clone(&released);
    let mut app = App::new();
    let hold = move |_: Value| {
        held.wait();
        std::future::ready(Ok(()))
    };
    app.handle("hold", hold).unwrap().handle("echo", echo).unwrap();
    let world = World::new(App::new()).await;
    let handlers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let router = world.router_with(app, handlers.handle().clone());
    let say = async |connection, body| {
        let deadline = world.now() + Duration::from_secs(3);
        router.route_before(&message(connection, json!(body), false), deadline).await
    };
    let lines = Lines::default();
    let logging = lines.collect(tracing::Level::ERROR);
    // The first `hold` call blocks the handler runtime that the test passed to the router. The router then creates
    // a new handler runtime, which the second `hold` call blocks.
    for stuck in 1..=2 {
        let answer = say("c-ann", r#"{"action":"hold","id":"r1"}"#).await;
        assert!(answer.contains("TIMEOUT"), "{answer}");
        let logged = lines.taken();
        assert!(logged.contains(&format!("\"stuck\":{stuck},")) && logged.lines().count() == 1, "{logged}");
        let answer = say("c-bob", r#"{"action":"echo","id":"r2","payload":"there"}"#).await;
        assert!(answer.contains("there"), "{answer}");
        let answer = say("c-bob", r#"{"action":"echo","id":"r3","payload":"still"}"#).await;
        assert!(answer.contains("still"), "{answer}");
    }
    drop(logging);
    assert_eq!(lines.taken(), "");
    released.wait();
    handlers.shutdown_background();
}

/// Buffer that collects log lines and metric lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Collects the log lines of this thread, at `level` and above, until the returned guard is dropped.
    fn collect(&self, level: tracing::Level) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .without_time()
            .with_max_level(level)
            .with_writer(move || lines.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// Removes the collected lines from the buffer and returns them.
    fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl MetricSink for Lines {
    fn write(&self, line: &MetricLine) {
        self.0.lock().unwrap().extend_from_slice((line.to_json() + "\n").as_bytes());
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

/// Clock that always returns the same time, 1,700,000,000 Unix seconds.
#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_700_000_000)
    }
}

/// Sends one message to `app` for each kind of outcome of a call, and then processes the request that was queued.
async fn make_calls_with_every_outcome(mut app: App) {
    async fn decline(_: Value) -> Result<(), HandlerError> {
        Err(HandlerError::failure("CARD_DECLINED", "The card was declined"))
    }
    async fn broken(_: Value) -> Result<(), HandlerError> {
        Err("x".parse::<u32>().unwrap_err())?
    }
    async fn bug(_: Value) -> Result<(), HandlerError> {
        panic!("a bug in the handler")
    }
    async fn hang(_: Value) -> Result<(), HandlerError> {
        std::future::pending().await
    }
    async fn any(_: Value) -> Result<(), HandlerError> {
        Ok(())
    }

    app.handle("decline", decline).unwrap().handle("broken", broken).unwrap();
    app.handle("bug", bug).unwrap().handle("hang", hang).unwrap().fallback(any).unwrap();
    let world = World::new(app).await;
    for (id, action, payload) in [
        ("r1", "takes", json!(2)),
        ("r2", "takes", json!("soon")),
        ("r3", "decline", json!(1)),
        ("r4", "broken", json!(1)),
        ("r5", "bug", json!(1)),
        ("r6", "hang", json!(1)),
        ("r7", "made \"up\"", json!(1)),
        ("r8", "takes", json!(60)),
        ("r9", "ping", json!(1)),
    ] {
        world.ask(action, id, payload).await;
    }
    world.process().await;
}

#[tokio::test(start_paused = true)]
async fn logging_layer_writes_one_line_for_each_call() {
    let lines = Lines::default();
    let logging = lines.collect(tracing::Level::INFO);
    let mut app = sleeper_app();
    app.layer(Logging);
    make_calls_with_every_outcome(app).await;
    drop(logging);
    let all = lines.taken();
    let calls: Vec<&str> = all.lines().filter(|line| line.contains(r#""message":"call finished""#)).collect();
    assert_snapshot!(calls.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn metrics_layer_writes_one_line_per_call_and_clients_cannot_choose_dimension_values() {
    let lines = Lines::default();
    let mut app = sleeper_app();
    app.layer(Metrics::to(Arc::new(lines.clone()), Arc::new(FixedClock)));
    make_calls_with_every_outcome(app).await;
    let lines = lines.taken();
    // All lines have the same text before `Action`. The snapshot shows this text once.
    let (head, _) = lines.split_once(r#","Action":"#).unwrap();
    let rest: Vec<&str> = lines.lines().map(|line| line.strip_prefix(head).unwrap()).collect();
    assert_snapshot!(format!("{head}\n{}", rest.join("\n")));
}

#[tokio::test(start_paused = true)]
async fn errors_that_a_client_can_cause_at_will_are_not_logged_at_info_or_above() {
    async fn decline(_: Value) -> Result<(), HandlerError> {
        Err(HandlerError::failure("CARD_DECLINED", "The card was declined"))
    }

    let lines = Lines::default();
    let mut app = sleeper_app();
    app.handle("decline", decline).unwrap();
    app.handle_with("audit", echo, RequirePermission::new("audit")).unwrap();
    let world = World::new(app).await;
    let logging = lines.collect(tracing::Level::INFO);
    for body in [
        r#"{"action":"fly","id":"r1"}"#,
        r#"{"action":"takes","id":"r2","payload":"soon"}"#,
        r#"{"action":"audit","id":"r3"}"#,
        r#"{"action":"decline","id":"r4"}"#,
        r#"{"action":"status","id":"r5","payload":{"request_id":"r9"}}"#,
        r#"{"action":7}"#,
        "hello",
    ] {
        world.say("c-ann", body).await;
    }
    world.say("c-nobody", r#"{"action":"takes","id":"r1","payload":1}"#).await;
    drop(logging);
    assert_eq!(lines.taken(), "");
}

#[tokio::test(start_paused = true)]
async fn only_unexpected_attempt_failures_are_logged_at_warn() {
    struct Fails;

    impl Handler for Fails {
        type Input = String;
        type Output = ();

        fn estimated_duration(&self, _: &String) -> Duration {
            Duration::from_mins(1)
        }

        async fn process(&self, failure: String, _: Context) -> Result<(), HandlerError> {
            let declined = HandlerError::failure("CARD_DECLINED", "The card was declined");
            Err(if failure == "broken" { declined.with_source("the bank is shut") } else { declined })
        }
    }

    let lines = Lines::default();
    let mut app = App::new();
    app.handle("fails", Fails).unwrap();
    let world = World::new(app).await;
    world.ask("fails", "r1", json!("declined")).await;
    world.ask("fails", "r2", json!("broken")).await;
    let logging = lines.collect(tracing::Level::WARN);
    world.process().await;
    drop(logging);
    for id in ["r1", "r2"] {
        assert_eq!(world.request(id).await.status, Status::Failed);
    }
    assert_snapshot!(lines.taken(), @r#"{"level":"WARN","message":"attempt failed","request":"acme/ann/r2","error":"CARD_DECLINED: The card was declined: the bank is shut","target":"streamer::executor::outcome"}"#);
}
