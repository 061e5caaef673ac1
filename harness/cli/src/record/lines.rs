//! From log lines to the events that were recorded in them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The key that makes a line a recording.
const MARK: &str = "streamer_record";

/// What Lambda itself writes between a function's lines.
const PLATFORM: [&str; 9] = [
    "INIT_START ",
    "INIT_REPORT ",
    "START RequestId",
    "END RequestId",
    "REPORT RequestId",
    "XRAY TraceId",
    "EXTENSION\t",
    "LOGS\t",
    "RESTORE_",
];

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) events: Vec<Recorded>,
    /// How many lines were no recordings, and are known for what they are.
    pub(super) others: usize,
    /// A sentence for each line that cannot be used, with where it is.
    pub(super) problems: Vec<String>,
}

/// One event that a function got.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) event: Value,
}

#[derive(Debug, Deserialize)]
struct Line {
    streamer_record: String,
    request_id: String,
    part: usize,
    parts: usize,
    json: Option<Value>,
    text: Option<String>,
}

/// The pieces of one text, and where its first was.
#[derive(Debug, Default)]
struct Pieces {
    at: String,
    parts: usize,
    texts: BTreeMap<usize, String>,
}

/// Reads a log in any of the forms that it comes in.
pub(super) fn read(text: &str) -> Log {
    let mut log = Log::default();
    let mut pieces = BTreeMap::new();
    if let Some(messages) = filtered(text) {
        for (index, message) in messages.iter().enumerate() {
            log.line(&format!("event {}", index + 1), message.as_deref(), &mut pieces);
        }
    } else {
        for (index, line) in text.lines().enumerate() {
            log.line(&format!("line {}", index + 1), Some(line), &mut pieces);
        }
    }
    for ((_, kind), Pieces { at, parts, texts }) in pieces {
        if texts.len() < parts {
            log.problems.push(format!("{at}: the {kind} has {parts} parts, and {} are here", texts.len()));
        } else if kind == "event" {
            match serde_json::from_str(&texts.into_values().collect::<String>()) {
                Ok(event) => log.events.push(Recorded { event }),
                Err(error) => log.problems.push(format!("{at}: the event is no JSON: {error}")),
            }
        }
    }
    log
}

/// The messages of an answer of `filter-log-events` or `get-log-events`, if it is one.
fn filtered(text: &str) -> Option<Vec<Option<String>>> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let events = answer.get("events")?.as_array()?;
    Some(events.iter().map(|event| event["message"].as_str().map(str::to_owned)).collect())
}

impl Log {
    fn line(&mut self, at: &str, line: Option<&str>, pieces: &mut BTreeMap<(String, String), Pieces>) {
        let Some(line) = line else {
            self.problems.push(format!("{at}: it has no message"));
            return;
        };
        let object = line.find('{').map(|start| serde_json::from_str(line[start..].trim_end()));
        let mut object: Map<String, Value> = match object {
            Some(Ok(object)) => object,
            Some(Err(error)) if line.contains(MARK) => {
                self.problems.push(format!("{at}: the recording cannot be read: {error}"));
                return;
            }
            _ if is_known(line) => {
                self.others += 1;
                return;
            }
            _ => {
                self.problems.push(format!(
                    "{at}: it is neither a recording, nor JSON, nor one of Lambda's own lines"
                ));
                return;
            }
        };
        if !object.contains_key(MARK) {
            if !line.contains(MARK) {
                self.others += 1;
                return;
            }
            // A log event as JSON, with the line in it.
            match object.remove("message").or_else(|| object.remove("@message")) {
                Some(Value::String(message)) if message.contains(MARK) => {
                    self.line(at, Some(&message), pieces);
                }
                _ => self.problems.push(format!("{at}: there is a {MARK} in it, but not where one belongs")),
            }
            return;
        }
        let read = match Line::deserialize(Value::Object(object)) {
            Ok(read) => read,
            Err(error) => {
                self.problems.push(format!("{at}: the recording cannot be read: {error}"));
                return;
            }
        };
        match read {
            Line { streamer_record, json: Some(event), .. } if streamer_record == "event" => {
                self.events.push(Recorded { event });
            }
            Line { json: Some(_), .. } => self.others += 1,
            Line { streamer_record, request_id, part, parts, text: Some(text), .. } => {
                let whole = pieces.entry((request_id, streamer_record)).or_default();
                if whole.texts.is_empty() {
                    (whole.at, whole.parts) = (at.to_owned(), parts);
                }
                whole.texts.insert(part, text);
            }
            Line { json: None, text: None, .. } => {
                self.problems.push(format!("{at}: the recording has neither json nor text"));
            }
        }
    }
}

/// Whether a line without JSON is one that Lambda writes.
fn is_known(line: &str) -> bool {
    line.trim().is_empty() || PLATFORM.iter().any(|known| line.contains(known))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(part: usize, parts: usize, text: &str) -> String {
        json!({"streamer_record": "event", "function": "f", "request_id": "r", "part": part, "parts": parts, "text": text})
            .to_string()
    }

    #[test]
    fn a_log_is_read_in_each_form_that_it_comes_in() {
        let recording = r#"{"streamer_record":"event","function":"f","request_id":"r","part":1,"parts":1,"json":{"a":1}}"#;
        let reply = recording.replace("\"event\"", "\"reply\"");
        let tailed = format!(
            "2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f INIT_START Runtime\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {recording}\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {reply}\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {{\"level\":\"INFO\"}}\n"
        );
        let filtered = json!({"events": [{"message": format!("{recording}\n")}, {"message": reply}, {"message": "END RequestId: r"}]});
        let as_event = |key: &str, message: &str| json!({"timestamp": 1, key: message}).to_string();
        let lines = [
            as_event("message", &format!("{recording}\n")),
            as_event("message", "END RequestId: r"),
            as_event("@message", &reply),
        ];
        let reordered =
            r#"{ "part": 1, "parts": 1, "json": {"a":1}, "request_id": "r", "streamer_record" : "event" }"#;
        let forms = [
            (tailed, 3),
            (filtered.to_string(), 2),
            (format!("{recording}\n\n"), 1),
            (lines.join("\n"), 2),
            (reordered.to_owned(), 0),
        ];
        for (text, others) in forms {
            let log = read(&text);
            assert_eq!((log.problems, log.others), (vec![], others), "{text}");
            assert_eq!(log.events.len(), 1);
            assert_eq!(log.events[0].event, json!({"a": 1}));
        }
    }

    #[test]
    fn the_parts_of_a_long_event_make_it_whole_in_any_order() {
        let log = read(&[line(2, 2, ":[1]}"), line(1, 2, "{\"a\"")].join("\n"));
        assert_eq!((log.problems, &log.events[0].event), (vec![], &json!({"a": [1]})));
    }

    #[test]
    fn each_bad_line_is_reported_where_it_is() {
        let bad = [
            "thread 'main' panicked".to_owned(),
            line(1, 1, "x")[..60].to_owned(),
            r#"{"streamer_record":"event","request_id":"r","part":1,"parts":1}"#.to_owned(),
            line(1, 2, "{"),
            json!({"level": "INFO", "message": "a streamer_record is near"}).to_string(),
            json!({"level": "INFO", "fields": {"streamer_record": "event"}}).to_string(),
            "no streamer_record here".to_owned(),
        ];
        let log = read(&bad.join("\n"));
        assert!(log.events.is_empty());
        let starts = [
            "line 1: it is neither",
            "line 2: the recording cannot",
            "line 3: the recording has",
            "line 5: it is neither",
            "line 6: there is a streamer_record in it",
            "line 7: it is neither",
            "line 4: the event has 2 parts, and 1",
        ];
        assert_eq!(log.problems.len(), starts.len(), "{:?}", log.problems);
        for (problem, start) in log.problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
        assert_eq!(read(r#"{"events":[{}]}"#).problems, ["event 1: it has no message"]);
        let unreadable = read(&line(1, 1, "no JSON")).problems;
        assert!(unreadable[0].starts_with("line 1: the event is no JSON"), "{unreadable:?}");
    }
}
