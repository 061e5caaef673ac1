//! Each event of `harness/fixtures`, through the real binaries behind the Runtime API, and against what the fakes send.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

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

/// All but the sweeper, which takes whatever comes and then runs for a minute.
const FUNCTIONS: [&str; 5] =
    ["ConnectFunction", "DisconnectFunction", "RouterFunction", "ProcessorFunction", "WorkerFunction"];

fn fixtures() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../harness/fixtures");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |file: std::path::PathBuf| {
        let fixture: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(fixture["source"].as_str().is_some_and(|source| !source.is_empty()), "{}", file.display());
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), fixture["event"].clone())
    };
    files.filter(|file| file.extension().is_some_and(|end| end == "json")).map(read).collect()
}

async fn stage(parameters: &[(&str, &str)]) -> (Stage, Arc<CapturedLog>) {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("template.yaml");
    let log = Arc::new(CapturedLog::new());
    let builder =
        Stage::builder().template(template).executables(Executables::of_this_test()).log(log.clone());
    let builder = parameters.iter().fold(builder, |builder, (name, value)| builder.parameter(*name, *value));
    (builder.start().await.unwrap(), log)
}

/// The reply, without the moments and request ids that differ from run to run.
fn settled(reply: Result<Value, InvokeError>) -> String {
    match reply {
        Ok(mut reply) => {
            let frame = reply["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
            if let Some(mut frame) = frame {
                for place in ["/timestamp", "/data/timestamp"] {
                    if let Some(moment) = frame.pointer_mut(place) {
                        *moment = json!("[now]");
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

/// Those that a function does not take are refused or ignored, and it lives on.
#[tokio::test(flavor = "multi_thread")]
async fn each_function_survives_each_fixture() {
    // What the tokens of the fixtures are signed with: a secret that keeps nothing.
    let secret = [("JwtAlgorithm", "HS256"), ("JwtKey", "0123456789abcdef0123456789abcdef")];
    let (stage, _log) = stage(&secret).await;
    let mut said = String::new();
    let fixtures = fixtures();
    let connect = fixtures["connect_query"].to_string();
    for (name, event) in &fixtures {
        for function in FUNCTIONS {
            // A message is from somebody who is connected, and some of what came before ended that.
            if function == "RouterFunction" {
                let connect = connect.clone().into();
                stage.functions().invoke("streamer-ConnectFunction", connect).await.unwrap();
            }
            let reply =
                stage.functions().invoke(&format!("streamer-{function}"), event.to_string().into()).await;
            let reply = settled(reply.map(|reply| serde_json::from_slice(&reply).unwrap()));
            assert!(!reply.starts_with("Runtime.ExitError"), "{name} ends {function}: {reply}");
            writeln!(said, "{name} | {function} | {reply}").unwrap();
        }
    }
    insta::assert_snapshot!(said);
    stage.shutdown().await;
}

/// Every key of an object and what is below it, but for what the client decides: headers and parameters.
fn keys(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object {
        let path = format!("{at}.{key}");
        found.insert(path.clone());
        let is_clients = path.contains("eaders") || path.contains("arameters") || path.contains("Image");
        if !is_clients {
            keys(value, &path, found);
        }
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(value, "", &mut found);
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
        // This client says nothing of itself; AWS leaves the key out then.
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
