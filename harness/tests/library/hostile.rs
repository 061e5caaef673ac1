//! Hostile messages of clients, and the short answer to each of them.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::{Frame, MAX_FRAME_BYTES, Message};
use tracing::level_filters::LevelFilter;

use crate::router::app;
use crate::world::{World, message};

/// Returns the message `around` with its `…` replaced by padding, so that the message has `bytes` bytes.
fn of_bytes(bytes: usize, around: &str) -> String {
    let (before, after) = around.split_once('…').unwrap();
    format!("{before}{}{after}", "x".repeat(bytes - before.len() - after.len()))
}

/// Returns a message of the action `echo` whose payload consists of `levels` nested arrays.
fn nested(levels: usize) -> String {
    let (open, close) = ("[".repeat(levels), "]".repeat(levels));
    format!(r#"{{"action":"echo","payload":{open}{close},"id":"r1"}}"#)
}

/// Returns the name and the text of each hostile message.
fn cases() -> Vec<(&'static str, String)> {
    let large = r#"{"action":"double","payload":"…","id":"r1"}"#;
    let numbers = vec!["1e15"; 20_000].join(",");
    let entries = (0..33).map(|n| format!(r#""k{n}":"""#)).collect::<Vec<_>>().join(",");
    let text = |text: &str| text.to_owned();
    vec![
        ("an empty message", text("")),
        ("a message of only white space", " \n".repeat(60_000)),
        ("a text that is not JSON", text("<script>")),
        ("the JSON value null", text("null")),
        ("a JSON string", text(r#""r1""#)),
        ("an array that contains an object", text(r#"[{"action":"echo","id":"r1"}]"#)),
        ("an empty object", text("{}")),
        ("two objects in one message", text(r#"{"action":"echo","id":"r1"}{"action":"echo","id":"r2"}"#)),
        ("a message truncated within the payload", text(r#"{"action":"echo","id":"r1","payload":{"a":"#)),
        ("a message truncated within the id", text(r#"{"action":"echo","id":"r1"#)),
        ("a leading byte order mark", text("\u{feff}{\"action\":\"echo\",\"id\":\"r1\"}")),
        (
            "a valid object surrounded by white space",
            format!("{}{}{0}", "\t".repeat(60_000), r#"{"action":"echo","id":"r1"}"#),
        ),
        ("a message one byte above the gateway's limit", of_bytes(MAX_FRAME_BYTES + 1, large)),
        ("a message of 6 MB, the largest that Lambda accepts", of_bytes(6_000_000, large)),
        ("8,000 nested unclosed objects", r#"{"id":"r1","a":"#.repeat(8_000)),
        (
            "100,000 nested unclosed arrays",
            r#"{"id":"r1","action":"echo","payload":"#.to_owned() + &"[".repeat(100_000),
        ),
        ("a payload nested one level too deep", nested(Message::MAX_DEPTH)),
        ("a payload nested as deeply as allowed", nested(Message::MAX_DEPTH - 1)),
        ("no action", text(r#"{"id":"r1","payload":{}}"#)),
        ("an action that is an array", text(r#"{"id":"r1","action":["echo"]}"#)),
        ("an empty action", text(r#"{"id":"r1","action":""}"#)),
        ("an action of 129 characters", format!(r#"{{"id":"r1","action":"{}"}}"#, "é".repeat(129))),
        ("an action with control characters", text(r#"{"id":"r1","action":"\u0000\r\n\u001b[2J"}"#)),
        ("an action in the wrong letter case", text(r#"{"id":"r1","action":"Echo"}"#)),
        ("an id that is a number", text(r#"{"id":1,"action":"echo"}"#)),
        ("an id with a control character", text(r#"{"id":"r1\n","action":"echo"}"#)),
        ("an id that is a lone surrogate", text(r#"{"id":"\ud800","action":"echo"}"#)),
        ("an id of 129 characters", format!(r#"{{"id":"{}","action":"echo"}}"#, "x".repeat(129))),
        ("an empty id", text(r#"{"id":"","action":"echo"}"#)),
        ("an id that looks like a path", text(r#"{"id":"../%2F/ann","action":"echo"}"#)),
        (
            "duplicate keys whose last values are valid",
            text(r#"{"id":"r2","action":"fly","id":"r1","action":"echo"}"#),
        ),
        ("duplicate ids of which the last is a number", text(r#"{"id":"r1","action":"fly","id":2}"#)),
        ("unknown keys", text(r#"{"id":"r1","action":"echo","user":"bob","type":7,"__proto__":{}}"#)),
        ("no payload", text(r#"{"id":"r1","action":"takes"}"#)),
        ("a null payload", text(r#"{"id":"r1","action":"takes","payload":null}"#)),
        (
            "an object as payload of an action that expects a number",
            text(r#"{"id":"r1","action":"takes","payload":{"seconds":1}}"#),
        ),
        ("a negative payload", text(r#"{"id":"r1","action":"takes","payload":-1}"#)),
        ("a fractional payload", text(r#"{"id":"r1","action":"takes","payload":1.5}"#)),
        ("a payload above 64 bits", text(r#"{"id":"r1","action":"takes","payload":18446744073709551616}"#)),
        ("a number above the range of f64", text(r#"{"id":"r1","action":"echo","payload":1e400}"#)),
        (
            "numbers that change when parsed as f64",
            text(r#"{"id":"r1","action":"echo","payload":[1e-400,-0,1e23]}"#),
        ),
        (
            "numbers that are longer in the response",
            format!(r#"{{"id":"r1","action":"echo","payload":[{numbers}]}}"#),
        ),
        ("a payload of lone surrogates", text(r#"{"id":"r1","action":"echo","payload":"\udc00\ud800"}"#)),
        ("metadata that is a string", text(r#"{"id":"r1","action":"echo","metadata":"x"}"#)),
        ("metadata with 33 entries", format!(r#"{{"id":"r1","action":"whoami","metadata":{{{entries}}}}}"#)),
        (
            "metadata of more than 2,048 bytes",
            of_bytes(2_100, r#"{"id":"r1","action":"whoami","metadata":{"k":"…"}}"#),
        ),
        (
            "metadata with nested values",
            text(r#"{"id":"r1","action":"whoami","metadata":{"k":[[{}]],"":null}}"#),
        ),
        ("a status query with an array as payload", text(r#"{"id":"r1","action":"status","payload":[]}"#)),
        (
            "a status query with an empty request id",
            text(r#"{"id":"r1","action":"status","payload":{"request_id":""}}"#),
        ),
        ("a subscription without payload", text(r#"{"id":"r1","action":"subscribe"}"#)),
        (
            "a subscription with a negative seq",
            text(r#"{"id":"r1","action":"subscribe","payload":{"request_id":"r2","seq":-1}}"#),
        ),
        (
            "a subscription with an array as request id and a string as seq",
            text(r#"{"id":"r1","action":"subscribe","payload":{"request_id":["r2"],"seq":"1"}}"#),
        ),
        (
            "a subscription with a seq above 64 bits",
            text(
                r#"{"id":"r1","action":"subscribe","payload":{"request_id":"r2","seq":18446744073709551616}}"#,
            ),
        ),
        (
            "a cancel with a control character as request id",
            text(r#"{"id":"r1","action":"cancel","payload":{"request_id":"\u0000"}}"#),
        ),
        (
            "a cancel with a request id of 100,000 characters",
            format!(
                r#"{{"id":"r1","action":"cancel","payload":{{"request_id":"{}"}}}}"#,
                "x".repeat(100_000)
            ),
        ),
        (
            "a cancel with an array of ids as payload",
            text(r#"{"id":"r1","action":"cancel","payload":["r1","r2"]}"#),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_hostile_message_gets_a_short_answer_with_its_request_id_if_readable() {
    let world = World::new(app()).await;
    let mut answers = String::new();
    for (case, body) in cases() {
        let answer = world.say("c-ann", body).await;
        assert!(
            answer.len() < 2_048,
            "{case}: the answer has fewer than 2,048 bytes, found {}",
            answer.len()
        );
        writeln!(answers, "{case}\n  {answer}").unwrap();
    }
    assert_snapshot!(answers);
    assert_eq!(world.records().len(), 0, "no hostile message is stored");
}

#[tokio::test(start_paused = true)]
async fn status_subscribe_and_cancel_of_missing_requests_store_and_push_nothing() {
    let world = World::new(app()).await;
    for id in ["r1", "#", "subscribers", "a.b[0]", ":seen", "../x", "%", "\u{202e}", " ", "😀"] {
        for action in ["status", "subscribe", "cancel"] {
            let payload = json!({"request_id": id, "seq": u64::MAX});
            let answer = world.say("c-ann", json!({"action": action, "id": "x1", "payload": payload})).await;
            assert!(answer.contains("\"NOT_FOUND\""), "{action} {id}: {answer}");
        }
    }
    assert_eq!(world.records().len(), 0);
    assert_eq!(world.clients.frames("c-ann"), []);
}

/// Writer that keeps the written log lines in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn flood_of_hostile_messages_causes_no_store_call_and_no_log_line() {
    let world = World::new(app()).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    world.say("c-ann", r#"{"action":"ping"}"#).await;
    let ledger = world.db.ledger();
    for n in 0..10_000 {
        let unknown = world.say("c-ann", format!(r#"{{"action":"a{n}","id":"r{n}"}}"#)).await;
        assert!(unknown.contains("INVALID_ACTION"), "{unknown}");
    }
    for (_, body) in cases() {
        world.say("c-ann", body).await;
    }
    assert_snapshot!(ledger.take(), @"no calls");
    assert_eq!(String::from_utf8(log.0.lock().unwrap().clone()).unwrap(), "");
}

/// Slow handler that returns its input wrapped in 32 nested arrays.
struct Wrap;

impl Handler for Wrap {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(60)
    }

    async fn process(&self, input: Value, _: Context) -> Result<Value, HandlerError> {
        Ok((0..32).fold(input, |inner, _| json!([inner])))
    }
}

#[tokio::test(start_paused = true)]
async fn message_of_maximum_nesting_depth_and_an_even_deeper_result_are_stored() {
    let mut app = App::new();
    app.handle("wrap", Wrap).unwrap();
    let world = World::new(app).await;
    let queued = world.say("c-ann", nested(Message::MAX_DEPTH - 1).replace("echo", "wrap")).await;
    assert!(queued.contains("\"queued\""), "{queued}");
    assert_eq!(world.process().await.batch_item_failures, []);
    let status = world.ask("status", "s1", json!({"request_id": "r1"})).await;
    let Frame::Response { data: Some(snapshot), .. } = status else { panic!("{status:?}") };
    assert_eq!(snapshot["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn gateway_event_with_missing_or_invalid_fields_is_still_answered() {
    let world = World::new(app()).await;
    let mut answers = String::new();
    let echo = json!(r#"{"action":"echo","id":"r1"}"#);
    for (case, body, base64) in [
        ("no body", Value::Null, false),
        ("a binary body", json!("eyJhY3Rpb24iOiJlY2hvIn0="), true),
        ("a text body that is marked as base64", echo.clone(), true),
    ] {
        let answer = world.router.route(&message("c-ann", body, base64)).await;
        writeln!(answers, "{case}\n  {answer}").unwrap();
    }
    let mut event = message("c-ann", echo, false);
    event.request_context.request_time_epoch = i64::MIN;
    writeln!(answers, "a request time of i64::MIN ms\n  {}", world.router.route(&event).await).unwrap();
    event.request_context.request_time_epoch = i64::MAX;
    writeln!(answers, "a request time of i64::MAX ms\n  {}", world.router.route(&event).await).unwrap();
    event.request_context.connection_id = None;
    writeln!(answers, "no connection id\n  {}", world.router.route(&event).await).unwrap();
    assert_snapshot!(answers);
}
