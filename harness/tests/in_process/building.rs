use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use serde_json::{Value, json};
use streamer::handler::{HandlerError, handler_fn};
use streamer_harness::event_source::Settings;
use streamer_harness::faults::{Call, Fault};
use streamer_harness::gateway::Route;
use streamer_harness::lambda::CapturedLog;
use streamer_harness::stage::{Services, Stage, function_fn, listen};
use streamer_harness::tables::Layout;
use streamer_harness::template::{Environment, Template};

use crate::{ann, app, builder};

fn lambdas_template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml")
}

#[tokio::test(start_paused = true)]
async fn deployed_template_runs_in_process() {
    let stage = Stage::builder().template(lambdas_template()).app(app()).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), json!({"pages": 6, "for_user": "ann"}));
    stage.shutdown().await;
}

/// Compares the built-in template with the deployed template, except for settings that make no difference in
/// process.
#[tokio::test(start_paused = true)]
async fn built_in_template_describes_the_same_stage_as_the_deployed_template() {
    let built_in = include_str!("../../src/stage/streamer.yaml");
    let parameters = [("JwtAlgorithm", "EdDSA"), ("JwtKey", "k")];
    let offered = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let environment = Environment { offered, ..Environment::default() };
    let ours = Template::parse(built_in, Path::new(""), &environment).unwrap();
    let deployed = Template::load(&lambdas_template(), &environment).unwrap();
    let relevant = |template: &Template| {
        let tables: Vec<_> = template
            .tables
            .iter()
            .map(|table| {
                let layout = &table.layout;
                (table.name.clone(), layout.keys.clone(), layout.indexes.clone(), layout.stream.clone())
            })
            .collect();
        let functions: Vec<_> = template
            .functions
            .iter()
            .map(|function| {
                let set = function.environment.iter().filter(|(_, value)| !value.is_empty());
                // Variables for logging and for the address of the real gateway.
                let irrelevant = ["LOG_LEVEL", "STREAMER_RECORD", "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"];
                let variables = set.filter(|(name, _)| !irrelevant.contains(&name.as_str()));
                let variables: Vec<_> = variables.map(|(n, v)| (n.clone(), v.clone())).collect();
                let asynchronous = format!("{:?}", function.asynchronous);
                (function.name.clone(), function.binary.clone(), function.timeout, variables, asynchronous)
            })
            .collect();
        let queues: Vec<_> = template.queues.iter().map(|queue| queue.name.clone()).collect();
        let (mappings, api) = (format!("{:?}", template.mappings), format!("{:?}", template.api));
        (tables, functions, queues, template.schedules.clone(), mappings, api)
    };
    assert_eq!(relevant(&ours), relevant(&deployed));
}

#[tokio::test(start_paused = true)]
async fn template_function_runs_the_code_given_by_the_test() {
    let busy = function_fn(|_: Value| async {
        Ok::<_, String>(json!({"statusCode": 200, "body": "{\"busy\":true}"}))
    });
    let stage = builder().function("router", busy).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.send_text("anything").await.unwrap();
    assert_eq!(ann.next_text().await.unwrap(), r#"{"busy":true}"#);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn stage_without_a_template_is_built_from_code() {
    let shout = function_fn(|event: Value| async move {
        let text = event["body"].as_str().ok_or("no body")?.to_uppercase();
        Ok::<_, &str>(json!({"statusCode": 200, "body": text}))
    });
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let consume = function_fn(move |event: Value| {
        let sent = sender.send(event["Records"][0]["dynamodb"]["Keys"].clone());
        async move { sent.map(|()| Value::Null) }
    });
    let layout = Layout::keyed_by("id").with_stream(StreamViewType::KeysOnly);
    let stage = Stage::builder()
        .table("things", layout)
        .function("Shout", shout)
        .function("Consume", consume)
        .route(Route::two_way("$default", "Shout"))
        .mapping("things", Settings::new("m1", "Consume", ""))
        .start()
        .await
        .unwrap();

    let mut client = stage.open(stage.ws_url()).await.unwrap();
    client.send_text("hello").await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "HELLO");

    let id = AttributeValue::S("t1".into());
    stage.dynamodb().client().put_item().table_name("things").item("id", id).send().await.unwrap();
    assert_eq!(received.recv().await.unwrap(), json!({"id": {"S": "t1"}}));
    assert_eq!(stage.items("things").await.unwrap(), [json!({"id": "t1"})]);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn handler_error_is_logged_at_log_level_info_and_not_at_off() {
    async fn fail(_: Value) -> Result<Value, HandlerError> {
        Err(HandlerError::failure("NO_PRINT", "not printed").with_source("out of ink"))
    }
    for (level, is_logged) in [("info", true), ("off", false)] {
        let mut app = app();
        app.handle("fail", fail).unwrap();
        let log = Arc::new(CapturedLog::new());
        let stage = Stage::builder().app(app).log(log.clone()).variable("LOG_LEVEL", level);
        let stage = stage.start().await.unwrap();
        let mut ann = stage.connect(&ann()).await.unwrap();
        ann.request("fail", "r1", json!(null)).await.unwrap();
        ann.failure("r1").await.unwrap();
        let lines = log.lines("streamer-RouterFunction");
        assert_eq!(
            lines.iter().any(|line| line.contains("out of ink")),
            is_logged,
            "log level {level}: {lines:?}"
        );
        stage.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn app_factory_makes_a_separate_app_for_each_environment() {
    let made = Arc::new(AtomicU32::new(0));
    let counted = made.clone();
    let make = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        app()
    };
    let stage = Stage::builder().app_per_environment(make).start().await.unwrap();
    assert_eq!(made.load(Ordering::Relaxed), 3, "router, processor and worker each have one app");
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("echo", "r1", json!(1)).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), 1);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dynamodb_call_of_a_handler_is_attributed_to_the_handlers_function() {
    let make = |services: &Services| {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::for_tests())
            .region(Region::new("us-east-1"))
            .http_client(services.http_client.clone());
        let client = Client::from_conf(config.build());
        let mut app = app();
        let put = handler_fn(move |id: String, _| {
            let put = client.put_item().table_name("things").item("id", AttributeValue::S(id));
            async move { put.send().await.map(|_| Value::Null).map_err(HandlerError::from) }
        });
        app.handle("put", put).unwrap();
        app
    };
    let stage = Stage::builder()
        .app_with_services(make)
        .table("things", Layout::keyed_by("id"))
        .start()
        .await
        .unwrap();
    let call = Call::dynamodb("PutItem").on("things").by("streamer-RouterFunction");
    let throttled = stage.faults().add(Fault::throttle(call).times(1));
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("put", "r1", json!("t1")).await.unwrap();
    let _ = ann.frames_until_terminal("r1").await.unwrap();
    assert_eq!(throttled.hits(), 1);
    ann.request("put", "r2", json!("t2")).await.unwrap();
    assert_eq!(ann.complete("r2").await.unwrap(), Value::Null);
    assert!(stage.items("things").await.unwrap().contains(&json!({"id": "t2"})));
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn start_error_of_a_stage_names_the_faulty_setting() {
    let no_code = Stage::builder().template(lambdas_template()).start().await.unwrap_err().to_string();
    assert!(
        no_code.starts_with(
            "function ConnectFunction is built from the binary \"connect\", but the stage has no code"
        ),
        "{no_code}"
    );
    let listening = builder().listener(listen(0).unwrap()).start().await.unwrap_err().to_string();
    assert!(listening.starts_with("a stage in process does not listen on a port; remove"), "{listening}");
    let no_template = builder().template("nowhere.yaml").start().await.unwrap_err().to_string();
    assert!(no_template.contains("nowhere.yaml"), "{no_template}");
    let bad = builder().template(lambdas_template()).parameter("AllowedTenants", "acme");
    let bad = bad.parameter("JwtKey", "nonsense").start().await.unwrap_err().to_string();
    assert!(bad.starts_with("function ConnectFunction does not start") && bad.contains("JWT_KEY"), "{bad}");
    let no_stream = Stage::builder()
        .table("things", Layout::keyed_by("id"))
        .function("Consume", function_fn(|_: Value| async { Ok::<_, String>(Value::Null) }))
        .mapping("things", Settings::new("m1", "Consume", ""));
    let no_stream = no_stream.start().await.unwrap_err().to_string();
    assert!(
        no_stream.contains(
            "function Consume is mapped to the stream of table things, but the table has no stream"
        ),
        "{no_stream}"
    );
}

#[tokio::test(start_paused = true)]
async fn shard_splits_preserve_the_order_of_each_items_records() {
    const ITEMS: usize = 12;
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let consume = function_fn(move |event: Value| {
        let sender = sender.clone();
        async move {
            for record in event["Records"].as_array().into_iter().flatten() {
                let image = &record["dynamodb"]["NewImage"];
                let text = |name: &str, kind: &str| image[name][kind].as_str().unwrap_or_default().to_owned();
                let _ = sender.send((text("id", "S"), text("n", "N")));
            }
            Ok::<_, String>(Value::Null)
        }
    });
    let stage = Stage::builder()
        .table("things", Layout::keyed_by("id").with_stream(StreamViewType::NewImage))
        .function("Consume", consume)
        .mapping("things", Settings { batch_size: 3, ..Settings::new("m1", "Consume", "") })
        .start()
        .await
        .unwrap();
    let (client, streams) = (stage.dynamodb().client(), stage.dynamodb().streams());
    let arn = streams.latest_stream_arn("things").unwrap();
    let mut splits = 0;
    for n in 0..4 {
        for item in 0..ITEMS {
            let id = AttributeValue::S(format!("item {item}"));
            let put = client.put_item().table_name("things").item("id", id);
            put.item("n", AttributeValue::N(n.to_string())).send().await.unwrap();
        }
        // Split the first open shard: the original shard first, then one of its children.
        let open = streams.shard_infos(&arn).unwrap().into_iter().find(|shard| !shard.closed).unwrap();
        splits += streams.split_shard(&arn, &open.id).unwrap().len();
        if n == 1 {
            stage.advance(Duration::from_secs(2)).await;
        }
    }
    assert_eq!(splits, 8);
    let mut of_item: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..4 * ITEMS {
        let (id, n) = received.recv().await.unwrap();
        of_item.entry(id).or_default().push(n);
    }
    assert_eq!(of_item.len(), ITEMS);
    assert!(of_item.values().all(|numbers| numbers[..] == ["0", "1", "2", "3"]), "{of_item:?}");
    stage.advance(Duration::from_secs(10)).await;
    assert!(received.try_recv().is_err(), "each record is delivered exactly once");
    stage.shutdown().await;
}
