//! Records a function's events and replies in its log. The command `streamer record` makes test fixtures from this
//! log.

use std::io::Write as _;
use std::task;

use lambda_runtime::tower::{Layer, Service};
use lambda_runtime::{Error, LambdaEvent, LambdaInvocation, Runtime, layers::TracingLayer, service_fn};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Environment;

/// Maximum length of an event or reply that is logged as one line, in bytes.
///
/// CloudWatch accepts 1 MiB per log event (256 KiB until April 2025). But Lambda has been observed to cut log lines
/// at 64 KiB, the capacity of the pipe from the function to Lambda.
const MAX_WHOLE_BYTES: usize = 60_000;
/// Maximum length of each piece of an event or reply that is logged in several lines, in bytes. JSON escapes can
/// double the length of a piece.
const MAX_PIECE_BYTES: usize = 28_000;

/// Reads the environment variable `STREAMER_RECORD`; `true` logs every event and its reply. Default `false`.
///
/// The recorded lines contain tokens and payloads. Enable recording only temporarily, and only where logs may contain
/// such data.
pub(crate) fn is_recording(environment: &mut Environment<'_>) -> bool {
    environment.or_default("STREAMER_RECORD", false, "true or false")
}

/// Runs `handler` in Lambda's runtime. If `recording` is `true`, writes each event and its reply to the log.
///
/// If `recording` is `false`, events and replies are not copied.
///
/// # Errors
/// An [`Error`] if Lambda's Runtime API does not answer.
pub(crate) async fn run<A, F, R>(
    recording: bool,
    handler: impl Fn(LambdaEvent<A>) -> F + Clone,
) -> Result<(), Error>
where
    A: for<'de> Deserialize<'de>,
    F: Future<Output = Result<R, Error>>,
    R: Serialize,
{
    if recording {
        tracing::warn!("STREAMER_RECORD is on; events and replies are logged with tokens and payloads");
    }
    let answering = service_fn(move |event: LambdaEvent<A>| {
        let recorded_context = recording.then(|| event.context.clone());
        let answer = handler(event);
        async move {
            let reply = answer.await?;
            if let Some(context) = recorded_context {
                let text = serde_json::to_string(&reply)?;
                write(&context.env_config.function_name, &context.request_id, "reply", &text);
            }
            Ok::<_, Error>(reply)
        }
    });
    let runtime = Runtime::new(answering).layer(TracingLayer::new()).layer(RecordEvents { recording });
    // Boxed, because the future contains the large futures of the AWS SDK.
    Box::pin(runtime.run()).await
}

/// The layer that records raw events before they are deserialized, so that invalid events are recorded too.
#[derive(Clone, Copy, Debug)]
struct RecordEvents {
    recording: bool,
}

#[derive(Debug)]
struct Recorder<S> {
    recording: bool,
    inner: S,
}

impl<S> Layer<S> for RecordEvents {
    type Service = Recorder<S>;

    fn layer(&self, inner: S) -> Recorder<S> {
        Recorder { recording: self.recording, inner }
    }
}

impl<S: Service<LambdaInvocation>> Service<LambdaInvocation> for Recorder<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> S::Future {
        if self.recording {
            let context = &invocation.context;
            let text = String::from_utf8_lossy(&invocation.body);
            write(&context.env_config.function_name, &context.request_id, "event", &text);
        }
        self.inner.call(invocation)
    }
}

fn write(function: &str, request_id: &str, kind: &str, text: &str) {
    // One `write_all` call under the lock, so that no other log line comes between the pieces. An error means that
    // standard output is closed.
    let _ = std::io::stdout().lock().write_all(lines(function, request_id, kind, text).as_bytes());
}

/// Formats an event or reply as one log line. A text that is long or is not JSON is split into pieces, one piece
/// per line.
fn lines(function: &str, request_id: &str, kind: &str, text: &str) -> String {
    let head = |part: usize, parts: usize| {
        json!({
            "streamer_record": kind, "function": function, "request_id": request_id, "part": part, "parts": parts,
        })
    };
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_json && text.len() <= MAX_WHOLE_BYTES {
        // Valid JSON contains line breaks only between tokens, where a space has the same meaning.
        let text = text.replace(['\n', '\r'], " ");
        let head = head(1, 1).to_string();
        return format!("{},\"json\":{text}}}\n", &head[..head.len() - 1]);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() || pieces.is_empty() {
        let (piece, remaining) = rest.split_at(rest.floor_char_boundary(MAX_PIECE_BYTES));
        pieces.push(piece);
        rest = remaining;
    }
    let line = |(index, piece): (usize, &&str)| {
        let mut line = head(index + 1, pieces.len());
        line["text"] = Value::from(*piece);
        line.to_string() + "\n"
    };
    pieces.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_json_event_is_logged_as_one_line_without_its_line_breaks() {
        let line = lines("router", "r1", "event", "{\"body\":\n  \"a\\nb\",\r\n\"n\": 1.50}");
        insta::assert_snapshot!(line, @r#"{"streamer_record":"event","function":"router","request_id":"r1","part":1,"parts":1,"json":{"body":   "a\nb",  "n": 1.50}}"#);
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn long_recorded_event_is_split_into_pieces_on_lines_below_64_kib() {
        let text = json!({ "payload": "\"é\\".repeat(40_000) }).to_string();
        let lines = lines("router", "r1", "event", &text);
        let mut whole = String::new();
        for (index, line) in lines.lines().enumerate() {
            assert!(
                line.len() < 64 * 1024,
                "each recorded line is shorter than 64 KiB, but one has {} bytes",
                line.len()
            );
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (line["part"].as_u64(), line["parts"].as_u64()),
                (Some(index as u64 + 1), Some(lines.lines().count() as u64))
            );
            whole.push_str(line["text"].as_str().unwrap());
        }
        assert_eq!(whole, text);
    }

    #[test]
    fn recorded_event_that_is_not_json_is_kept_as_text() {
        let line: Value = serde_json::from_str(&lines("f", "r1", "event", "{cut\n off")).unwrap();
        assert_eq!((&line["text"], &line["part"]), (&json!("{cut\n off"), &json!(1)));
        assert_eq!(lines("f", "r1", "event", "").lines().count(), 1);
    }
}
