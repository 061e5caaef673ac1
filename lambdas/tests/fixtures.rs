//! Sends each event of `harness/fixtures` to the real function binaries, and compares the fixtures with the
//! events of the local stage.
#![expect(clippy::unwrap_used, reason = "a panic in a test helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamer_harness::client::Client;
use streamer_harness::lambda::{CapturedLog, Invoke as _, InvokeError};
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::{Executables, Stage};

/// All functions except the sweeper, which ignores its event and then runs for a minute.
const FUNCTIONS: [&str; 5] =
    ["ConnectFunction", "DisconnectFunction", "RouterFunction", "ProcessorFunction", "WorkerFunction"];

fn fixtures() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../harness/fixtures");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |file: std::path::PathBuf| {
        let fixture: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(
            fixture["source"].as_str().is_some_and(|source| !source.is_empty()),
            "fixture {} names its source",
            file.display()
        );
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), fixture["event"].clone())
    };
    files.filter(|file| file.extension().is_some_and(|end| end == "json")).map(read).collect()
}

async fn stage(parameters: &[(&str, &str)]) -> (Stage, Arc<CapturedLog>) {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("template.yaml");
    let log = Arc::new(CapturedLog::new());
    let builder =
        Stage::builder().template(template).executables(Executables::from_cargo_test()).log(log.clone());
    let builder = parameters.iter().fold(builder, |builder, (name, value)| builder.parameter(*name, *value));
    (builder.start().await.unwrap(), log)
}

/// Returns a function's reply or error as text, with the timestamps of its frame replaced by `[now]`.
fn reply_text(reply: Result<Value, InvokeError>) -> String {
    match reply {
        Ok(mut reply) => {
            let frame = reply["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
            if let Some(mut frame) = frame {
                for path in ["/timestamp", "/data/timestamp"] {
                    if let Some(timestamp) = frame.pointer_mut(path) {
                        *timestamp = json!("[now]");
                    }
                }
                reply["body"] = frame;
            }
            reply.to_string()
        }
        Err(InvokeError::Function { error_type, message }) => format!("{error_type}: {message}"),
        Err(error) => panic!("{error}"),
    }
}

/// A function refuses or ignores an event of the wrong kind, and must not exit.
#[tokio::test(flavor = "multi_thread")]
async fn each_function_survives_each_fixture() {
    // The tokens in the fixtures are signed with this secret, which protects nothing.
    let secret = [("JwtAlgorithm", "HS256"), ("JwtKey", "0123456789abcdef0123456789abcdef")];
    let (stage, _log) = stage(&secret).await;
    let mut replies = String::new();
    let fixtures = fixtures();
    let connect = fixtures["connect_query"].to_string();
    for (name, event) in &fixtures {
        for function in FUNCTIONS {
            // The router needs a stored connection, and an earlier event may have deleted the connection.
            if function == "RouterFunction" {
                let connect = connect.clone().into();
                stage.functions().invoke("streamer-ConnectFunction", connect).await.unwrap();
            }
            let reply =
                stage.functions().invoke(&format!("streamer-{function}"), event.to_string().into()).await;
            let reply = reply_text(reply.map(|reply| serde_json::from_slice(&reply).unwrap()));
            assert!(
                !reply.starts_with("Runtime.ExitError"),
                "{function} does not exit on the fixture {name}: {reply}"
            );
            writeln!(replies, "{name} | {function} | {reply}").unwrap();
        }
    }
    insta::assert_snapshot!(replies);
    stage.shutdown().await;
}

/// Collects the paths of all keys below a value, except within headers, query parameters and item images,
/// whose keys depend on the client or the table.
fn collect_keys(value: &Value, parent: &str, found: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object {
        let path = format!("{parent}.{key}");
        found.insert(path.clone());
        let has_free_keys = path.contains("eaders") || path.contains("arameters") || path.contains("Image");
        if !has_free_keys {
            collect_keys(value, &path, found);
        }
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect_keys(value, "", &mut found);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_local_stage_have_the_same_keys_as_the_fixtures() {
    let (stage, log) = stage(&[("RecordEvents", "true")]).await;
    let ttl = Duration::from_secs(60);
    let ann = TokenFor { user: "ann".into(), tenant: "acme".into(), permissions: Vec::new(), ttl };
    let mut client = Client::connect(&stage.ws_url(), &stage.token(&ann)).await.unwrap();
    client.request("echo_async", "r1", &json!({"message": "hi", "rounds": 1})).await.unwrap();
    while !client.next_frame().await.unwrap().is_terminal() {}
    client.close().await.unwrap();

    let fixtures = fixtures();
    for (function, fixture) in [
        ("ConnectFunction", "connect_query"),
        ("RouterFunction", "message"),
        ("ProcessorFunction", "stream_insert"),
        ("DisconnectFunction", "disconnect_1005"),
    ] {
        let function = format!("streamer-{function}");
        let line = log.wait_for(&function, r#""streamer_record":"event""#).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["function"], json!(function));
        let (sent, expected) = (&line["json"], &fixtures[fixture]);
        let (mut sent_keys, mut expected_keys) = (keys_of(sent), keys_of(expected));
        if let (Some(sent), Some(expected)) = (sent["Records"].get(0), expected["Records"].get(0)) {
            (sent_keys, expected_keys) = (keys_of(sent), keys_of(expected));
        }
        // The test's client sends no User-Agent header, and AWS then omits the key `userAgent`.
        expected_keys.remove(".requestContext.identity.userAgent");
        sent_keys.remove(".requestContext.identity.userAgent");
        assert!(expected_keys.len() > 8, "{expected_keys:?}");
        assert_eq!(sent_keys, expected_keys, "{fixture}");

        let reply = log.wait_for(&function, r#""streamer_record":"reply""#).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["request_id"], line["request_id"], "{function}");
        log.wait_for(&function, "STREAMER_RECORD is on").await;
    }
    stage.shutdown().await;
}
