//! The events that a function gets, and what it replies, as lines of its log: what `streamer record` makes fixtures of.

use std::io::Write as _;
use std::task;

use lambda_runtime::tower::{Layer, Service};
use lambda_runtime::{Error, LambdaEvent, LambdaInvocation, Runtime, layers::TracingLayer, service_fn};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Environment;

/// The longest text that a line holds whole, and the longest piece of a longer one, in bytes.
///
/// CloudWatch takes 1 MiB an event, and took 256 KiB until April 2025; but Lambda has been seen to cut a line where the
/// pipe ends that it comes through, at 64 KiB. Escaped, a piece is at most twice as long.
const MAX_WHOLE_BYTES: usize = 60_000;
const MAX_PIECE_BYTES: usize = 28_000;

/// Whether every event and its reply goes to the log, for fixtures to be made of: `STREAMER_RECORD`, `true` or `false`,
/// default `false`.
///
/// Tokens and payloads are in them: it is for a while, and for a stage whose log may hold that.
pub(crate) fn is_recording(environment: &mut Environment<'_>) -> bool {
    environment.or_default("STREAMER_RECORD", false, "true or false")
}

/// Runs `handler` under Lambda's runtime, and with `recording` writes each event and its reply to the log.
///
/// Without, nothing is copied and nothing written.
///
/// # Errors
/// When Lambda's Runtime API is not there.
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
        tracing::warn!(
            "STREAMER_RECORD is on: every event and reply goes to the log, with tokens and payloads"
        );
    }
    let answering = service_fn(move |event: LambdaEvent<A>| {
        let whose = recording.then(|| event.context.clone());
        let answer = handler(event);
        async move {
            let reply = answer.await?;
            if let Some(context) = whose {
                let text = serde_json::to_string(&reply)?;
                write(&context.env_config.function_name, &context.request_id, "reply", &text);
            }
            Ok::<_, Error>(reply)
        }
    });
    let runtime = Runtime::new(answering).layer(TracingLayer::new()).layer(RecordEvents { recording });
    // Boxed, since the SDK's futures are in it, which are large.
    Box::pin(runtime.run()).await
}

/// Records what comes, before it is read: also what cannot be.
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
    // All at once, so that no other line comes in between; and where nobody reads the output, nobody misses it.
    let _ = std::io::stdout().lock().write_all(lines(function, request_id, kind, text).as_bytes());
}

/// The text as one line, or in pieces that are a line each.
fn lines(function: &str, request_id: &str, kind: &str, text: &str) -> String {
    let head = |part: usize, parts: usize| {
        json!({
            "streamer_record": kind, "function": function, "request_id": request_id, "part": part, "parts": parts,
        })
    };
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_json && text.len() <= MAX_WHOLE_BYTES {
        // JSON has line ends between its tokens alone, where a space is as good.
        let text = text.replace(['\n', '\r'], " ");
        let head = head(1, 1).to_string();
        return format!("{},\"json\":{text}}}\n", &head[..head.len() - 1]);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() || pieces.is_empty() {
        let (piece, further) = rest.split_at(rest.floor_char_boundary(MAX_PIECE_BYTES));
        pieces.push(piece);
        rest = further;
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
    fn a_text_is_one_line_that_holds_it_as_it_is() {
        let line = lines("router", "r1", "event", "{\"body\":\n  \"a\\nb\",\r\n\"n\": 1.50}");
        insta::assert_snapshot!(line, @r#"{"streamer_record":"event","function":"router","request_id":"r1","part":1,"parts":1,"json":{"body":   "a\nb",  "n": 1.50}}"#);
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_long_text_comes_in_lines_that_nothing_cuts_and_that_make_the_whole() {
        let text = json!({ "payload": "\"é\\".repeat(40_000) }).to_string();
        let lines = lines("router", "r1", "event", &text);
        let mut whole = String::new();
        for (index, line) in lines.lines().enumerate() {
            assert!(line.len() < 64 * 1024, "{}", line.len());
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
    fn what_is_no_json_is_kept_as_text() {
        let line: Value = serde_json::from_str(&lines("f", "r1", "event", "{cut\n off")).unwrap();
        assert_eq!((&line["text"], &line["part"]), (&json!("{cut\n off"), &json!(1)));
        assert_eq!(lines("f", "r1", "event", "").lines().count(), 1);
    }
}
